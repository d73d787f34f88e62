// Kernels that touch memory which is not there.
#pragma once
#include <pthread.h>

#include <csetjmp>
#include <csignal>


namespace cudasim {

/// While one exists, an access outside of all memory by this host thread goes back to `sigsetjmp(guard.back, 1)`, which then
/// returns something else than 0. Nothing on the way there may have a destructor.
class FaultGuard {
 public:
  FaultGuard();
  ~FaultGuard();
  FaultGuard(const FaultGuard&) = delete;
  FaultGuard& operator=(const FaultGuard&) = delete;

  sigjmp_buf back;
  /// What could not be accessed.
  const void* address = nullptr;

 private:
  static void handle(int signal, siginfo_t* info, void* context);

  pthread_t thread_;
  struct sigaction before_segv_, before_bus_;
};

}  // namespace cudasim
