// Translation of preprocessed CUDA C++ to C++ that the host's compiler accepts.
#pragma once
#include <stdexcept>
#include <string>

namespace cudasim {

/// An error in the source, with file and line.
struct SourceError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Replaces `__shared__` declarations by memory of the running block, removes `__global__` and
/// `__launch_bounds__`, and appends the launch glue of every kernel.
std::string translate(const std::string& preprocessed);

}  // namespace cudasim
