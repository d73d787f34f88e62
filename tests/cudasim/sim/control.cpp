// Functions that the Rust side calls to change settings and read state.
#include <cstring>

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

CUDASIM_EXPORT void cudasim_set_memory_limit(size_t bytes) {
  Lock lock(mutex);
  settings.memory_limit = bytes;
}

CUDASIM_EXPORT void cudasim_set_device_count(int count) {
  Lock lock(mutex);
  settings.devices = count;
}

CUDASIM_EXPORT void cudasim_set_compute_capability(int capability) {
  Lock lock(mutex);
  settings.compute_capability = capability;
}

CUDASIM_EXPORT void cudasim_set_multiprocessors(int count) {
  Lock lock(mutex);
  settings.multiprocessors = count;
}

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
}

CUDASIM_EXPORT unsigned long long cudasim_launches(const char* kernel) {
  Lock lock(mutex);
  return launches(kernel);
}

CUDASIM_EXPORT size_t cudasim_used_memory() {
  Lock lock(mutex);
  return used_memory();
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
