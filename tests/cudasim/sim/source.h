// From preprocessed CUDA C++ to C++ that the host's compiler takes.
#pragma once
#include <stdexcept>
#include <string>

namespace cudasim {

/// Something in the source that the simulator does not take; names file and line.
struct SourceError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Gives `__shared__` declarations memory of the running block, takes `__global__` and `__launch_bounds__` away, and appends
/// the launch glue of every kernel.
std::string translate(const std::string& preprocessed);

}  // namespace cudasim
