// Devices and contexts.
#pragma once

namespace cudasim {

/// A device's context, one per device. All share one state, since no test needs two busy devices.
struct Context {
  int device;
  /// How often the context was retained and not released.
  int users = 0;
};

/// The context that is current on this thread, or null.
Context* current_context();

/// Notes that cuBLAS uses the primary context. The CUDA runtime inside it keeps the context for the
/// life of the process, so cuBLAS is unusable once a context that it used was released.
void use_in_cublas();
bool released_beneath_cublas();
void forget_release();

constexpr int max_block_threads = 1024;
constexpr int max_multiprocessor_threads = 2048;
constexpr int default_block_shared = 48 << 10;
constexpr int max_block_shared = 227 << 10;
constexpr int max_multiprocessor_shared = 228 << 10;
/// Shared memory of each block that the device reserves for itself.
constexpr int reserved_block_shared = 1 << 10;

}  // namespace cudasim
