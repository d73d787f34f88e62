// What AddressSanitizer and ThreadSanitizer must be told about fibers. Their runtimes are preloaded; without one, every call
// here does nothing.
#pragma once
#include <cstddef>

namespace cudasim::sanitizer {

enum class Mode { none, address, thread };
/// How the simulator was built, and kernels are compiled.
constexpr Mode mode() {
#if defined(CUDASIM_SANITIZE_ADDRESS)
  return Mode::address;
#elif defined(CUDASIM_SANITIZE_THREAD)
  return Mode::thread;
#else
  return Mode::none;
#endif
}

/// What happened before `release` of a token is known to whoever calls `acquire` later.
void acquire(void* token);
void release(void* token);

void* create_fiber();
void destroy_fiber(void* fiber);
void* current_fiber();
void switch_to(void* fiber);

void start_switch(void** fake_stack, const void* bottom, size_t size);
void finish_switch(void* fake_stack, const void** bottom, size_t* size);
/// A stack that was left in the middle is clean again.
void forget_stack(void* bottom, size_t size);

}  // namespace cudasim::sanitizer
