// Functions that the Rust side calls to change settings and read state.
#include <cstring>

#include "device.h"
#include "memory.h"
#include "process.h"
#include "state.h"
#include "stream.h"

namespace cudasim {

/// Checks that kernels can be compiled; otherwise writes the reason.
CUDASIM_EXPORT int cudasim_check_compiler(char* reason, size_t room) {
  Outcome outcome = run_program({CUDASIM_CXX, "--version"});
  if (outcome.status == 0) return success;
  std::strncpy(reason, outcome.output.c_str(), room - 1);
  reason[room - 1] = 0;
  return not_found;
}

CUDASIM_EXPORT void cudasim_set_cache(const char* folder) {
  Lock lock(mutex);
  cache_folder = folder;
}

CUDASIM_EXPORT void cudasim_set_seed(unsigned long long seed) {
  Lock lock(mutex);
  seed_schedule(seed);
}

#define CUDASIM_SETTER(field, type)                     \
  CUDASIM_EXPORT void cudasim_set_##field(type value) { \
    Lock lock(mutex);                                   \
    settings.field = value;                             \
  }
CUDASIM_SETTER(memory_limit, size_t)
CUDASIM_SETTER(pinned_limit, size_t)
CUDASIM_SETTER(devices, int)
CUDASIM_SETTER(compute_capability, int)
CUDASIM_SETTER(multiprocessors, int)
CUDASIM_SETTER(driver_version, int)
CUDASIM_SETTER(compiler_version, int)
CUDASIM_SETTER(products_version, int)
CUDASIM_SETTER(taken_shared, int)
CUDASIM_SETTER(resident_limit, int)
CUDASIM_SETTER(capture_pause, int)
CUDASIM_SETTER(failing_kernel, const char*)

/// Work still queued is dropped if the context is poisoned, otherwise it runs.
CUDASIM_EXPORT void cudasim_clear_error() {
  Lock lock(mutex);
  drain_all();
  clear_error();
}

CUDASIM_EXPORT void cudasim_reset() {
  Lock lock(mutex);
  cudasim_clear_error();
  settings = {};
  seed_schedule(0);
  forget_launches();
  forget_release();
}

CUDASIM_EXPORT unsigned long long cudasim_launches(const char* kernel) {
  Lock lock(mutex);
  return launches(kernel);
}

CUDASIM_EXPORT size_t cudasim_used_memory() {
  Lock lock(mutex);
  return used_memory();
}

CUDASIM_EXPORT size_t cudasim_pinned_memory() {
  Lock lock(mutex);
  return pinned_memory();
}

/// The pieces of work that are queued and have not run.
CUDASIM_EXPORT size_t cudasim_queued() {
  Lock lock(mutex);
  size_t count = 0;
  for (Stream* stream : all_streams()) count += stream->queue.size();
  return count;
}

CUDASIM_EXPORT size_t cudasim_allocations() {
  Lock lock(mutex);
  return allocations();
}

/// Returns the length of the report; copies as much of it as fits.
CUDASIM_EXPORT size_t cudasim_last_report(char* to, size_t room) {
  Lock lock(mutex);
  std::string text = last_report();
  if (room > 0) std::memcpy(to, text.data(), text.size() < room ? text.size() : room);
  return text.size();
}

}  // namespace cudasim
