// Device memory and page-locked host memory.
#pragma once
#include <cstddef>
#include <string>

namespace cudasim {

enum class Memory { device, pinned, registered, global };

/// Poisoned memory, or null when the device has not enough.
void* allocate(size_t bytes, Memory kind);
/// False if there is no such allocation.
bool release(void* pointer, Memory kind);

/// Makes memory known that somebody else owns.
void adopt(void* pointer, size_t bytes, Memory kind);
void disown(void* pointer);

/// All `bytes` lie in one allocation that the device may address.
bool on_device(const void* pointer, size_t bytes);
/// All `bytes` lie in page-locked host memory.
bool page_locked(const void* pointer, size_t bytes);
/// Poisons the context and returns false unless all `bytes` are the device's to touch.
bool check_access(const void* pointer, size_t bytes, const std::string& what);

size_t used_memory();
size_t allocations();

}  // namespace cudasim
