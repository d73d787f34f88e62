#include "sanitizer.h"

// Declared here instead of including the sanitizers' headers, and weak: under ThreadSanitizer this
// library is not instrumented. The runtime comes with the kernels and LD_PRELOAD.
#define CUDASIM_WEAK __attribute__((weak))
extern "C" {
CUDASIM_WEAK void __sanitizer_start_switch_fiber(void**, const void*, size_t);
CUDASIM_WEAK void __sanitizer_finish_switch_fiber(void*, const void**, size_t*);
CUDASIM_WEAK void __asan_unpoison_memory_region(const volatile void*, size_t);
CUDASIM_WEAK void* __tsan_create_fiber(unsigned);
CUDASIM_WEAK void __tsan_destroy_fiber(void*);
CUDASIM_WEAK void* __tsan_get_current_fiber();
CUDASIM_WEAK void __tsan_switch_to_fiber(void*, unsigned);
CUDASIM_WEAK void __tsan_acquire(void*);
CUDASIM_WEAK void __tsan_release(void*);
}

namespace cudasim::sanitizer {
namespace {

constexpr bool address = mode() == Mode::address, thread = mode() == Mode::thread;
/// Switching fibers must not count as synchronisation.
constexpr unsigned no_sync = 1;

}  // namespace

void acquire(void* token) {
  if constexpr (thread) __tsan_acquire(token);
}
void release(void* token) {
  if constexpr (thread) __tsan_release(token);
}

void* create_fiber() {
  if constexpr (thread) return __tsan_create_fiber(0);
  return nullptr;
}
void destroy_fiber(void* fiber) {
  if constexpr (thread) __tsan_destroy_fiber(fiber);
}
void* current_fiber() {
  if constexpr (thread) return __tsan_get_current_fiber();
  return nullptr;
}
void switch_to(void* fiber) {
  if constexpr (thread) __tsan_switch_to_fiber(fiber, no_sync);
}

void start_switch(void** fake_stack, const void* bottom, size_t size) {
  if constexpr (address) __sanitizer_start_switch_fiber(fake_stack, bottom, size);
}
void finish_switch(void* fake_stack, const void** bottom, size_t* size) {
  if constexpr (address) __sanitizer_finish_switch_fiber(fake_stack, bottom, size);
}
void forget_stack(void* bottom, size_t size) {
  if constexpr (address) __asan_unpoison_memory_region(bottom, size);
}

}  // namespace cudasim::sanitizer
