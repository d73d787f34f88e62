// Memory pools. The simulator keeps no freed memory, so a pool only stores its attributes.
#include <cstdint>
#include <set>

#include "device.h"
#include "memory.h"
#include "state.h"

namespace cudasim {
namespace {

struct Pool {
  uint64_t release_threshold = 0;
  int reuse[3] = {1, 1, 1};
};

Pool default_pool;
std::set<Pool*> pools{&default_pool};
Pool* device_pool = &default_pool;

/// The attributes, by the driver's numbers.
enum Attribute {
  reuse_first = 1,
  reuse_last = 3,
  release_threshold = 4,
  reserved_current = 5,
  used_high = 8
};

}  // namespace

CUDASIM_EXPORT int cuDeviceGetDefaultMemPool(Pool** pool, int device) {
  Lock lock(mutex);
  if (device < 0 || device >= settings.devices) return invalid_device;
  *pool = &default_pool;
  return success;
}

CUDASIM_EXPORT int cuDeviceGetMemPool(Pool** pool, int device) {
  Lock lock(mutex);
  if (device < 0 || device >= settings.devices) return invalid_device;
  *pool = device_pool;
  return success;
}

CUDASIM_EXPORT int cuDeviceSetMemPool(int device, Pool* pool) {
  Lock lock(mutex);
  if (device < 0 || device >= settings.devices) return invalid_device;
  if (!pools.count(pool)) return invalid_value;
  device_pool = pool;
  return success;
}

CUDASIM_EXPORT int cuMemPoolCreate(Pool** pool, const void*) {
  Lock lock(mutex);
  *pool = *pools.insert(new Pool).first;
  return success;
}

CUDASIM_EXPORT int cuMemPoolDestroy(Pool* pool) {
  Lock lock(mutex);
  if (pool == &default_pool || !pools.erase(pool)) return invalid_value;
  if (device_pool == pool) device_pool = &default_pool;
  delete pool;
  return success;
}

CUDASIM_EXPORT int cuMemPoolSetAttribute(Pool* pool, int attribute, void* value) {
  Lock lock(mutex);
  if (!pools.count(pool)) return invalid_value;
  if (attribute >= reuse_first && attribute <= reuse_last)
    pool->reuse[attribute - reuse_first] = *static_cast<int*>(value);
  else if (attribute == release_threshold)
    pool->release_threshold = *static_cast<uint64_t*>(value);
  else
    return invalid_value;
  return success;
}

CUDASIM_EXPORT int cuMemPoolGetAttribute(Pool* pool, int attribute, void* value) {
  Lock lock(mutex);
  if (!pools.count(pool)) return invalid_value;
  if (attribute >= reuse_first && attribute <= reuse_last)
    *static_cast<int*>(value) = pool->reuse[attribute - reuse_first];
  else if (attribute == release_threshold)
    *static_cast<uint64_t*>(value) = pool->release_threshold;
  else if (attribute >= reserved_current && attribute <= used_high)
    *static_cast<uint64_t*>(value) = used_memory();
  else
    return invalid_value;
  return success;
}

CUDASIM_EXPORT int cuMemPoolTrimTo(Pool* pool, size_t) {
  Lock lock(mutex);
  return pools.count(pool) ? success : invalid_value;
}

}  // namespace cudasim
