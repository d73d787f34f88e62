// Starting the host's compiler.
#pragma once
#include <string>
#include <vector>

namespace cudasim {

struct Outcome {
  /// The exit status; -1 if the program could not be started.
  int status;
  /// What it wrote to both of its outputs.
  std::string output;
};

/// Runs a program found on PATH, without the libraries that were preloaded into this process.
Outcome run_program(const std::vector<std::string>& command);

}  // namespace cudasim
