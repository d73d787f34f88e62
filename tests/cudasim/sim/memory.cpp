// Device memory is host memory, filled with 0xFF when it is allocated and when it is freed: every
// float type reads as NaN.
#include "memory.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>

#include "sanitizer.h"
#include "state.h"
#include "stream.h"

namespace cudasim {
namespace {

constexpr int poison_byte = 0xFF;
constexpr size_t alignment = 256;
constexpr size_t quarantine_limit = size_t{32} << 20;

struct Allocation {
  size_t bytes;
  Memory kind;
};

std::map<uintptr_t, Allocation> live;
size_t used = 0, pinned = 0;

/// Freed memory is kept here before it returns to the host, so that a late write by a kernel does
/// no harm and a late read returns poison.
struct Quarantine {
  std::deque<std::pair<void*, size_t>> blocks;
  size_t bytes = 0;

  void add(void* pointer, size_t size) {
    blocks.emplace_back(pointer, size);
    bytes += size;
    while (bytes > quarantine_limit) {
      std::free(blocks.front().first);
      bytes -= blocks.front().second;
      blocks.pop_front();
    }
  }
} quarantine;

bool fits(size_t now, size_t more, size_t limit) { return more <= limit && now <= limit - more; }

bool counts(Memory kind) { return kind == Memory::device; }

const std::pair<const uintptr_t, Allocation>* find(const void* pointer, size_t bytes) {
  auto address = reinterpret_cast<uintptr_t>(pointer);
  auto after = live.upper_bound(address);
  if (after == live.begin()) return nullptr;
  auto& entry = *--after;
  return address + bytes <= entry.first + entry.second.bytes ? &entry : nullptr;
}

}  // namespace

void* allocate(size_t bytes, Memory kind) {
  if (counts(kind) && !fits(used, bytes, settings.memory_limit)) return nullptr;
  if (kind == Memory::pinned && !fits(pinned, bytes, settings.pinned_limit)) return nullptr;
  void* pointer = nullptr;
  if (posix_memalign(&pointer, alignment, bytes)) return nullptr;
  std::memset(pointer, poison_byte, bytes);
  adopt(pointer, bytes, kind);
  if (counts(kind)) used += bytes;
  if (kind == Memory::pinned) pinned += bytes;
  return pointer;
}

bool release(void* pointer, Memory kind) {
  auto found = live.find(reinterpret_cast<uintptr_t>(pointer));
  if (found == live.end() || found->second.kind != kind) return false;
  size_t bytes = found->second.bytes;
  live.erase(found);
  if (counts(kind)) used -= bytes;
  if (kind == Memory::pinned) pinned -= bytes;
  if (sanitizer::mode() == sanitizer::Mode::none) {
    std::memset(pointer, poison_byte, bytes);
    quarantine.add(pointer, bytes);
  } else {
    std::free(pointer);  // the sanitizer has its own quarantine
  }
  return true;
}

void adopt(void* pointer, size_t bytes, Memory kind) {
  live[reinterpret_cast<uintptr_t>(pointer)] = {bytes, kind};
}

void disown(void* pointer) { live.erase(reinterpret_cast<uintptr_t>(pointer)); }

bool on_device(const void* pointer, size_t bytes) { return find(pointer, bytes) != nullptr; }

bool page_locked(const void* pointer, size_t bytes) {
  auto* entry = find(pointer, bytes);
  return entry &&
         (entry->second.kind == Memory::pinned || entry->second.kind == Memory::registered);
}

bool check_access(const void* pointer, size_t bytes, const std::string& what) {
  if (bytes == 0 || on_device(pointer, bytes)) return true;
  char text[96];
  std::snprintf(text, sizeof text, " touches %zu bytes at %p, outside any device allocation", bytes,
                pointer);
  poison(illegal_address, what + text);
  return false;
}

bool reserve(size_t bytes) {
  if (!fits(used, bytes, settings.memory_limit)) return false;
  used += bytes;
  return true;
}

void unreserve(size_t bytes) { used -= bytes; }

size_t used_memory() { return used; }

size_t pinned_memory() { return pinned; }

size_t allocations() {
  size_t count = 0;
  for (auto& [address, allocation] : live) count += counts(allocation.kind);
  return count;
}

namespace {

using DevicePointer = unsigned long long;

void* pointer_of(DevicePointer p) { return reinterpret_cast<void*>(p); }

int allocate_device(DevicePointer* to, size_t bytes) {
  if (bytes == 0) return invalid_value;
  void* pointer = allocate(bytes, Memory::device);
  if (!pointer) {
    // Queued frees return memory; the driver waits for them too.
    drain_all();
    CUDASIM_TRY(poisoned());
    pointer = allocate(bytes, Memory::device);
  }
  if (!pointer) return out_of_memory;
  *to = reinterpret_cast<DevicePointer>(pointer);
  return success;
}

int copy_to_device(DevicePointer to, const void* from, size_t bytes, Stream& stream) {
  if (bytes == 0) return success;
  auto copy = [to, bytes](const void* source) {
    if (check_access(pointer_of(to), bytes, "a copy to the device"))
      std::memcpy(pointer_of(to), source, bytes);
  };
  // Page-locked memory is read when the copy runs.
  if (page_locked(from, bytes)) return submit(stream, [=] { copy(from); });
  if (capturing(stream)) return violate_capture(stream, "a copy from pageable host memory");
  std::string staged(static_cast<const char*>(from), bytes);
  return submit(stream, [=, staged = std::move(staged)] { copy(staged.data()); });
}

int copy_to_host(void* to, DevicePointer from, size_t bytes, Stream& stream) {
  if (bytes == 0) return success;
  bool pinned = page_locked(to, bytes);
  if (!pinned && capturing(stream))
    return violate_capture(stream, "a copy to pageable host memory");
  CUDASIM_TRY(submit(stream, [=] {
    if (check_access(pointer_of(from), bytes, "a copy to the host"))
      std::memcpy(to, pointer_of(from), bytes);
  }));
  if (!pinned) drain(stream);  // the driver returns only after such a copy
  return poisoned();
}

int copy_on_device(DevicePointer to, DevicePointer from, size_t bytes, Stream& stream) {
  if (bytes == 0) return success;
  return submit(stream, [=] {
    if (check_access(pointer_of(to), bytes, "the target of a copy on the device") &&
        check_access(pointer_of(from), bytes, "the source of a copy on the device"))
      std::memmove(pointer_of(to), pointer_of(from), bytes);
  });
}

template <class T>
int fill(DevicePointer to, T value, size_t count, Stream& stream) {
  if (to % sizeof(T)) return invalid_value;
  return submit(stream, [=] {
    if (!check_access(pointer_of(to), count * sizeof(T), "a fill")) return;
    auto* at = static_cast<T*>(pointer_of(to));
    for (size_t i = 0; i < count; i++) at[i] = value;
  });
}

/// Calls without `Async` use the default stream and wait for it.
template <class Queue>
int synchronously(const char* name, Queue queue) {
  Lock lock(mutex);
  CUDASIM_TRY(usable());
  CUDASIM_TRY(refuse_in_any_capture(name));
  Stream& stream = default_stream();
  CUDASIM_TRY(queue(stream));
  drain(stream);
  return poisoned();
}

template <class Queue>
int on_stream(StreamHandle handle, Queue queue) {
  Lock lock(mutex);
  CUDASIM_TRY(usable());
  Stream* stream = stream_of(handle);
  return stream ? queue(*stream) : invalid_handle;
}

}  // namespace

// ---- allocation ----

CUDASIM_EXPORT int cuMemAlloc_v2(DevicePointer* to, size_t bytes) {
  Lock lock(mutex);
  CUDASIM_TRY(usable());
  CUDASIM_TRY(refuse_in_any_capture("cuMemAlloc"));
  return allocate_device(to, bytes);
}

CUDASIM_EXPORT int cuMemFree_v2(DevicePointer pointer) {
  Lock lock(mutex);
  if (!pointer) return success;
  CUDASIM_TRY(refuse_in_any_capture("cuMemFree"));
  drain_all();  // cuMemFree waits for the device
  return release(pointer_of(pointer), Memory::device) ? success : invalid_value;
}

CUDASIM_EXPORT int cuMemAllocAsync(DevicePointer* to, size_t bytes, StreamHandle handle) {
  return on_stream(handle, [=](Stream& stream) -> int {
    if (capturing(stream)) return violate_capture(stream, "cuMemAllocAsync");
    return allocate_device(to, bytes);
  });
}

CUDASIM_EXPORT int cuMemAllocFromPoolAsync(DevicePointer* to, size_t bytes, void*,
                                           StreamHandle handle) {
  return cuMemAllocAsync(to, bytes, handle);
}

CUDASIM_EXPORT int cuMemFreeAsync(DevicePointer pointer, StreamHandle handle) {
  Lock lock(mutex);
  if (!pointer) return success;
  Stream* stream = stream_of(handle);
  if (!stream) return invalid_handle;
  if (capturing(*stream)) return violate_capture(*stream, "cuMemFreeAsync");
  auto found = live.find(pointer);
  if (found == live.end() || found->second.kind != Memory::device) return invalid_value;
  return submit_always(*stream, [pointer] { release(pointer_of(pointer), Memory::device); });
}

CUDASIM_EXPORT int cuMemGetInfo_v2(size_t* available, size_t* total) {
  Lock lock(mutex);
  CUDASIM_TRY(usable());
  if (total) *total = settings.memory_limit;
  if (available) *available = settings.memory_limit > used ? settings.memory_limit - used : 0;
  return success;
}

CUDASIM_EXPORT int cuMemHostAlloc(void** to, size_t bytes, unsigned) {
  Lock lock(mutex);
  CUDASIM_TRY(usable());
  CUDASIM_TRY(refuse_in_any_capture("cuMemHostAlloc"));
  if (bytes == 0) return invalid_value;
  *to = allocate(bytes, Memory::pinned);
  return *to ? success : out_of_memory;
}
CUDASIM_EXPORT int cuMemAllocHost_v2(void** to, size_t bytes) {
  return cuMemHostAlloc(to, bytes, 0);
}

CUDASIM_EXPORT int cuMemFreeHost(void* pointer) {
  Lock lock(mutex);
  return release(pointer, Memory::pinned) ? success : invalid_value;
}

CUDASIM_EXPORT int cuMemHostRegister_v2(void* pointer, size_t bytes, unsigned) {
  Lock lock(mutex);
  CUDASIM_TRY(usable());
  if (!pointer || bytes == 0 || on_device(pointer, 1)) return invalid_value;
  adopt(pointer, bytes, Memory::registered);
  return success;
}

CUDASIM_EXPORT int cuMemHostUnregister(void* pointer) {
  Lock lock(mutex);
  drain_all();
  auto found = live.find(reinterpret_cast<uintptr_t>(pointer));
  if (found == live.end() || found->second.kind != Memory::registered) return invalid_value;
  live.erase(found);
  return success;
}

// ---- copies and fills ----

CUDASIM_EXPORT int cuMemcpyHtoD_v2(DevicePointer to, const void* from, size_t bytes) {
  return synchronously("cuMemcpyHtoD",
                       [=](Stream& stream) { return copy_to_device(to, from, bytes, stream); });
}
CUDASIM_EXPORT int cuMemcpyHtoDAsync_v2(DevicePointer to, const void* from, size_t bytes,
                                        StreamHandle handle) {
  return on_stream(handle, [=](Stream& stream) { return copy_to_device(to, from, bytes, stream); });
}
CUDASIM_EXPORT int cuMemcpyDtoH_v2(void* to, DevicePointer from, size_t bytes) {
  return synchronously("cuMemcpyDtoH",
                       [=](Stream& stream) { return copy_to_host(to, from, bytes, stream); });
}
CUDASIM_EXPORT int cuMemcpyDtoHAsync_v2(void* to, DevicePointer from, size_t bytes,
                                        StreamHandle handle) {
  return on_stream(handle, [=](Stream& stream) { return copy_to_host(to, from, bytes, stream); });
}
CUDASIM_EXPORT int cuMemcpyDtoD_v2(DevicePointer to, DevicePointer from, size_t bytes) {
  return synchronously("cuMemcpyDtoD",
                       [=](Stream& stream) { return copy_on_device(to, from, bytes, stream); });
}
CUDASIM_EXPORT int cuMemcpyDtoDAsync_v2(DevicePointer to, DevicePointer from, size_t bytes,
                                        StreamHandle handle) {
  return on_stream(handle, [=](Stream& stream) { return copy_on_device(to, from, bytes, stream); });
}

CUDASIM_EXPORT int cuMemsetD8_v2(DevicePointer to, unsigned char value, size_t count) {
  return synchronously("cuMemsetD8",
                       [=](Stream& stream) { return fill(to, value, count, stream); });
}
CUDASIM_EXPORT int cuMemsetD8Async(DevicePointer to, unsigned char value, size_t count,
                                   StreamHandle handle) {
  return on_stream(handle, [=](Stream& stream) { return fill(to, value, count, stream); });
}
CUDASIM_EXPORT int cuMemsetD16Async(DevicePointer to, unsigned short value, size_t count,
                                    StreamHandle handle) {
  return on_stream(handle, [=](Stream& stream) { return fill(to, value, count, stream); });
}
CUDASIM_EXPORT int cuMemsetD32_v2(DevicePointer to, unsigned value, size_t count) {
  return synchronously("cuMemsetD32",
                       [=](Stream& stream) { return fill(to, value, count, stream); });
}
CUDASIM_EXPORT int cuMemsetD32Async(DevicePointer to, unsigned value, size_t count,
                                    StreamHandle handle) {
  return on_stream(handle, [=](Stream& stream) { return fill(to, value, count, stream); });
}

}  // namespace cudasim
