// Annotations of fibers for AddressSanitizer and ThreadSanitizer. Their runtimes are preloaded;
// without a sanitizer, every function here does nothing.
#pragma once
#include <cstddef>

namespace cudasim::sanitizer {

enum class Mode { none, address, thread };
/// The sanitizer that the simulator is built for and kernels are compiled with.
constexpr Mode mode() {
#if defined(CUDASIM_SANITIZE_ADDRESS)
  return Mode::address;
#elif defined(CUDASIM_SANITIZE_THREAD)
  return Mode::thread;
#else
  return Mode::none;
#endif
}

/// Everything before `release` of a token happens before a later `acquire` of it.
void acquire(void* token);
void release(void* token);

void* create_fiber();
void destroy_fiber(void* fiber);
void* current_fiber();
void switch_to(void* fiber);

void start_switch(void** fake_stack, const void* bottom, size_t size);
void finish_switch(void* fake_stack, const void** bottom, size_t* size);
/// Marks an abandoned stack as clean.
void forget_stack(void* bottom, size_t size);

}  // namespace cudasim::sanitizer
