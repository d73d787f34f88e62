// Devices, contexts and their attributes.
#include "device.h"

#include <array>
#include <cstdio>
#include <cstring>

#include "memory.h"
#include "state.h"
#include "stream.h"

namespace cudasim {
namespace {

constexpr int max_devices = 16;
std::array<Context, max_devices> contexts;
thread_local Context* current = nullptr;
bool initialized = false;
bool used_by_cublas = false, released = false;

int check_device(int device) {
  if (!initialized) return not_initialized;
  return device >= 0 && device < settings.devices ? success : invalid_device;
}

/// The attributes that the simulator supports, by the driver's numbers.
int attribute(int number) {
  switch (number) {
    case 1: return max_block_threads;  // MAX_THREADS_PER_BLOCK
    case 2:
    case 3: return 1024;        // MAX_BLOCK_DIM_X, _Y
    case 4: return 64;          // MAX_BLOCK_DIM_Z
    case 5: return 0x7fffffff;  // MAX_GRID_DIM_X
    case 6:
    case 7: return 65535;                 // MAX_GRID_DIM_Y, _Z
    case 8: return default_block_shared;  // MAX_SHARED_MEMORY_PER_BLOCK
    case 9: return 64 << 10;              // TOTAL_CONSTANT_MEMORY
    case 10: return 32;                   // WARP_SIZE
    case 12:
    case 82: return 65536;                       // MAX_REGISTERS_PER_BLOCK, _PER_MULTIPROCESSOR
    case 13: return 1000000;                     // CLOCK_RATE, kHz
    case 14: return 512;                         // TEXTURE_ALIGNMENT
    case 15: return 1;                           // GPU_OVERLAP
    case 16: return settings.multiprocessors;    // MULTIPROCESSOR_COUNT
    case 19: return 1;                           // CAN_MAP_HOST_MEMORY
    case 31: return 1;                           // CONCURRENT_KERNELS
    case 36: return 1000000;                     // MEMORY_CLOCK_RATE, kHz
    case 37: return 256;                         // GLOBAL_MEMORY_BUS_WIDTH
    case 38: return 8 << 20;                     // L2_CACHE_SIZE
    case 39: return max_multiprocessor_threads;  // MAX_THREADS_PER_MULTIPROCESSOR
    case 40: return 2;                           // ASYNC_ENGINE_COUNT
    case 41: return 1;                           // UNIFIED_ADDRESSING
    case 75: return settings.compute_capability / 10;
    case 76: return settings.compute_capability % 10;
    case 78: return 1;                          // STREAM_PRIORITIES_SUPPORTED
    case 81: return max_multiprocessor_shared;  // MAX_SHARED_MEMORY_PER_MULTIPROCESSOR
    case 95: return 1;                          // COOPERATIVE_LAUNCH
    case 97: return max_block_shared;           // MAX_SHARED_MEMORY_PER_BLOCK_OPTIN
    case 106: return 32;                        // MAX_BLOCKS_PER_MULTIPROCESSOR
    case 111: return reserved_block_shared;     // RESERVED_SHARED_MEMORY_PER_BLOCK
    case 115: return 1;                         // MEMORY_POOLS_SUPPORTED
    default: return 0;
  }
}

}  // namespace

Context* current_context() { return current; }

void use_in_cublas() { used_by_cublas = true; }
bool released_beneath_cublas() { return released; }
void forget_release() { used_by_cublas = released = false; }

CUDASIM_EXPORT int cuInit(unsigned flags) {
  Lock lock(mutex);
  if (flags) return invalid_value;
  if (settings.devices == 0) return no_device;
  for (int i = 0; i < max_devices; i++) contexts[i].device = i;
  initialized = true;
  return success;
}

CUDASIM_EXPORT int cuDriverGetVersion(int* version) {
  if (settings.driver_version == 0) return stub_library;
  *version = settings.driver_version;
  return success;
}

CUDASIM_EXPORT int cuDeviceGetCount(int* count) {
  Lock lock(mutex);
  if (!initialized) return not_initialized;
  *count = settings.devices;
  return success;
}

CUDASIM_EXPORT int cuDeviceGet(int* device, int ordinal) {
  Lock lock(mutex);
  CUDASIM_TRY(check_device(ordinal));
  *device = ordinal;
  return success;
}

CUDASIM_EXPORT int cuDeviceGetName(char* name, int size, int device) {
  Lock lock(mutex);
  CUDASIM_TRY(check_device(device));
  // Kernel caches identify a device by its name; another build must not load their kernels.
  std::snprintf(name, static_cast<size_t>(size), "simulated device " CUDASIM_BUILD);
  return success;
}

static int uuid(void* to, int device) {
  Lock lock(mutex);
  CUDASIM_TRY(check_device(device));
  std::memcpy(to, "cudasim\0\0\0\0\0\0\0\0", 16);
  static_cast<char*>(to)[15] = static_cast<char>(device);
  return success;
}
CUDASIM_EXPORT int cuDeviceGetUuid(void* to, int device) { return uuid(to, device); }
CUDASIM_EXPORT int cuDeviceGetUuid_v2(void* to, int device) { return uuid(to, device); }

CUDASIM_EXPORT int cuDeviceTotalMem_v2(size_t* bytes, int device) {
  Lock lock(mutex);
  CUDASIM_TRY(check_device(device));
  *bytes = settings.memory_limit;
  return success;
}

CUDASIM_EXPORT int cuDeviceGetAttribute(int* value, int number, int device) {
  Lock lock(mutex);
  CUDASIM_TRY(check_device(device));
  *value = attribute(number);
  return success;
}

CUDASIM_EXPORT int cuDeviceComputeCapability(int* major, int* minor, int device) {
  Lock lock(mutex);
  CUDASIM_TRY(check_device(device));
  *major = attribute(75), *minor = attribute(76);
  return success;
}

CUDASIM_EXPORT int cuDevicePrimaryCtxRetain(Context** context, int device) {
  Lock lock(mutex);
  CUDASIM_TRY(check_device(device));
  *context = &contexts[static_cast<size_t>(device)];
  (*context)->users++;
  return success;
}

CUDASIM_EXPORT int cuDevicePrimaryCtxRelease_v2(int device) {
  Lock lock(mutex);
  if (!initialized || device < 0 || device >= max_devices) return invalid_device;
  Context& context = contexts[static_cast<size_t>(device)];
  if (context.users == 0) return invalid_context;
  if (--context.users == 0 && used_by_cublas) {
    released = true;
    report(
        "the primary context was released, although cuBLAS keeps it: cuBLAS cannot be used any "
        "more");
  }
  return success;
}

CUDASIM_EXPORT int cuCtxGetCurrent(Context** context) {
  *context = current;
  return success;
}

CUDASIM_EXPORT int cuCtxSetCurrent(Context* context) {
  current = context;
  return success;
}

CUDASIM_EXPORT int cuCtxGetDevice(int* device) {
  if (!current) return invalid_context;
  *device = current->device;
  return success;
}

CUDASIM_EXPORT int cuCtxSetFlags(unsigned) { return current ? success : invalid_context; }

CUDASIM_EXPORT int cuCtxGetStreamPriorityRange(int* least, int* greatest) {
  if (!current) return invalid_context;
  if (least) *least = 0;
  if (greatest) *greatest = -5;
  return success;
}

CUDASIM_EXPORT int cuCtxSynchronize() {
  Lock lock(mutex);
  CUDASIM_TRY(usable());
  CUDASIM_TRY(refuse_in_any_capture("cuCtxSynchronize"));
  drain_all();
  return poisoned();
}

// The simulator measures no time, so a profiler has nothing to record.
CUDASIM_EXPORT int cuProfilerStart() { return success; }
CUDASIM_EXPORT int cuProfilerStop() { return success; }

}  // namespace cudasim
