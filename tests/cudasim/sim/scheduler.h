// Execution of kernels.
#pragma once
#include <string>

#include "include/cudasim_abi.h"

namespace cudasim {

struct Launch {
  const KernelEntry* entry;
  std::string kernel;
  const void* arguments;
  Index3 grid, block;
  unsigned dynamic_shared;
  /// All blocks are resident at once.
  bool cooperative;
};

/// Runs a kernel to its end. A kernel that cannot end, or breaks a rule, poisons the context.
void run(const Launch& launch);

/// The functions that kernels call.
const DeviceApi& device_api();

}  // namespace cudasim
