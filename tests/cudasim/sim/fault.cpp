#include "fault.h"

#include "sanitizer.h"

namespace cudasim {
namespace {

// Kernels run one at a time, under the simulator's lock.
FaultGuard* active = nullptr;

}  // namespace

void FaultGuard::handle(int signal, siginfo_t* info, void*) {
  if (active && pthread_equal(active->thread_, pthread_self())) {
    active->address = info->si_addr;
    siglongjmp(active->back, 1);
  }
  // A fault of another thread: restores the previous handler, and the fault occurs again.
  if (active)
    sigaction(signal, signal == SIGSEGV ? &active->before_segv_ : &active->before_bus_, nullptr);
}

FaultGuard::FaultGuard() : thread_(pthread_self()) {
  // The sanitizers report illegal accesses themselves, in more detail.
  if (sanitizer::mode() != sanitizer::Mode::none) return;
  struct sigaction action = {};
  action.sa_sigaction = handle;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigemptyset(&action.sa_mask);
  active = this;
  sigaction(SIGSEGV, &action, &before_segv_);
  sigaction(SIGBUS, &action, &before_bus_);
}

FaultGuard::~FaultGuard() {
  if (active != this) return;
  sigaction(SIGSEGV, &before_segv_, nullptr);
  sigaction(SIGBUS, &before_bus_, nullptr);
  active = nullptr;
}

}  // namespace cudasim
