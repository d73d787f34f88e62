// Device memory and page-locked host memory.
#pragma once
#include <cstddef>
#include <string>

namespace cudasim {

enum class Memory { device, pinned, registered, global };

/// Returns poisoned memory, or null if the device has too little.
void* allocate(size_t bytes, Memory kind);
/// Returns false if there is no such allocation.
bool release(void* pointer, Memory kind);

/// Registers memory that is owned elsewhere.
void adopt(void* pointer, size_t bytes, Memory kind);
void disown(void* pointer);

/// Whether all `bytes` are in one allocation that the device can address.
bool on_device(const void* pointer, size_t bytes);
/// Whether all `bytes` are in page-locked host memory.
bool page_locked(const void* pointer, size_t bytes);
/// Poisons the context and returns false unless the device may access all `bytes`.
bool check_access(const void* pointer, size_t bytes, const std::string& what);

/// Memory that the driver needs for itself: modules, graphs, libraries. False if there is too
/// little.
bool reserve(size_t bytes);
void unreserve(size_t bytes);

size_t used_memory();
size_t pinned_memory();
size_t allocations();

}  // namespace cudasim
