// Handling of kernels that access unmapped memory.
#pragma once
#include <pthread.h>

#include <csetjmp>
#include <csignal>

namespace cudasim {

/// While a guard exists, an illegal memory access of this host thread jumps back to
/// `sigsetjmp(guard.back, 1)`, which then returns a value other than 0. No destructors run for the
/// frames in between, so none of them may need one.
class FaultGuard {
 public:
  FaultGuard();
  ~FaultGuard();
  FaultGuard(const FaultGuard&) = delete;
  FaultGuard& operator=(const FaultGuard&) = delete;

  sigjmp_buf back;
  /// The address that could not be accessed.
  const void* address = nullptr;

 private:
  static void handle(int signal, siginfo_t* info, void* context);

  pthread_t thread_;
  struct sigaction before_segv_, before_bus_;
};

}  // namespace cudasim
