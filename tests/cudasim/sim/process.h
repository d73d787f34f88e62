// Starting the host's compiler.
#pragma once
#include <string>
#include <vector>

namespace cudasim {

struct Outcome {
  /// The exit status; -1 if the program could not be started.
  int status;
  /// The program's output on stdout and stderr.
  std::string output;
};

/// Runs a program from PATH, without the libraries that are preloaded into this process.
Outcome run_program(const std::vector<std::string>& command);

}  // namespace cudasim
