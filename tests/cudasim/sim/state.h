// Shared state: the lock, error codes, settings, random numbers, and the latest report.
#pragma once
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>

#define CUDASIM_EXPORT extern "C" __attribute__((visibility("default")))

/// Returns from the calling function unless `expression` is success.
#define CUDASIM_TRY(expression)                                     \
  do {                                                              \
    if (int cudasim_status_ = (expression)) return cudasim_status_; \
  } while (0)

namespace cudasim {

/// The driver's error codes, with its numbers.
enum Status : int {
  success = 0,
  invalid_value = 1,
  out_of_memory = 2,
  not_initialized = 3,
  stub_library = 34,
  no_device = 100,
  invalid_device = 101,
  invalid_image = 200,
  invalid_context = 201,
  no_binary_for_gpu = 209,
  file_not_found = 301,
  invalid_handle = 400,
  not_found = 500,
  not_ready = 600,
  illegal_address = 700,
  launch_out_of_resources = 701,
  launch_failed = 719,
  cooperative_launch_too_large = 720,
  not_supported = 801,
  capture_unsupported = 900,
  capture_invalidated = 901,
  capture_merge = 902,
  capture_unmatched = 903,
  capture_unjoined = 904,
  capture_isolation = 905,
  capture_implicit = 906,
  captured_event = 907,
  capture_wrong_thread = 908,
  graph_update_failure = 910,
};

struct Settings {
  /// 0: one fixed schedule, streams as late as events allow. Other values: random schedules.
  uint64_t seed = 0;
  size_t memory_limit = size_t{4} << 30;
  int devices = 1;
  int compute_capability = 90;
  int multiprocessors = 4;
  /// Versions of the driver, NVRTC and cuBLAS: 13000 for 13.0. A driver of version 0 is the stub of
  /// the toolkit.
  int driver_version = 13000;
  int compiler_version = 13000;
  int products_version = 13000;
  size_t pinned_limit = size_t{1} << 40;
  /// Bytes of each multiprocessor's shared memory that another program has, such as a debugger.
  int taken_shared = 0;
  /// Blocks of a cooperative launch above which it is refused, whatever the occupancy query says:
  /// another process may have a part of the device.
  int resident_limit = 1 << 30;
  /// Milliseconds for which the call that begins a capture lets other threads in.
  int capture_pause = 0;
  /// The kernel whose next run fails, as after a hardware error; none if empty.
  std::string failing_kernel;
};

extern Settings settings;
/// The folder of compiled kernels.
extern std::string cache_folder;

/// Every entry point holds this lock: there is one device, whatever the number of host threads.
using Lock = std::lock_guard<std::recursive_mutex>;
extern std::recursive_mutex mutex;

/// A random number below `n` from the schedule's generator. Only meaningful with a seed.
unsigned random_below(unsigned n);
bool randomized();
void seed_schedule(uint64_t seed);

/// The error that poisoned the context, as a failed kernel does on a GPU.
int poisoned();
/// Poisons the context and stores the report. The first report stays until `clear_error`.
void poison(int status, const std::string& report);
/// Stores the report of a refused call, without poisoning the context.
void report(const std::string& text);
std::string last_report();
void clear_error();

/// Checks the requirements of a call that uses the device: a context is current on this thread and
/// not poisoned.
int usable();

void count_launch(const std::string& kernel);
uint64_t launches(const std::string& kernel);
void forget_launches();

}  // namespace cudasim
