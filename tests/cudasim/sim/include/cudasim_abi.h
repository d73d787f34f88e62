// What the simulator and the kernels it compiles agree on. Included by both sides; includes nothing, since kernel source must
// not see more than NVRTC would show it.
#pragma once

namespace cudasim {

struct Index3 {
  unsigned x, y, z;
};

/// Where the running CUDA thread is.
struct ThreadState {
  Index3 thread, block, block_dim, grid_dim;
  unsigned lane;
};

/// A place in the kernel's source. Barriers are told apart by it: return addresses would not do, since the compiler may
/// copy a call into both arms of a branch, or unroll it.
struct Site {
  const char* file;
  int line;
};

enum class Vote { none, count, all, any };

/// What a warp collective computes. `lanes[i]` is the operand of lane i, null for lanes that take no part.
using Combine = void (*)(unsigned mask, void* const* lanes);

/// The simulator as kernels see it. The functions whose names begin with `suspend_` may let other threads run; a kernel
/// that can reach none of them runs as a plain loop (see source.cpp, which looks for these names).
struct DeviceApi {
  ThreadState* current;
  int (*suspend_block_barrier)(Site site, Vote vote, int predicate);
  void (*suspend_warp_collective)(Site site, unsigned mask, Combine combine, void* operand);
  /// The thread has nothing to do until others have gone on.
  void (*suspend_yield)();
  /// The thread looks at a flag that another may set.
  void (*suspend_poll)();
  /// A random schedule may go on with another thread here.
  void (*preempt)();
  /// Poisoned memory of the running block; one piece for each function (an instance of a template is one) and declaration.
  void* (*static_shared)(const void* function, int declaration, unsigned long size);
  void* (*dynamic_shared)();
  /// `copy` makes the copy: it is the kernel's code, which a sanitizer watches.
  void (*copy_async)(void* shared, const void* global, unsigned bytes, void (*copy)(void* to, const void* from));
  void (*copy_async_commit)();
  void (*copy_async_wait)(unsigned pending_groups);
  /// Stops the kernel with a report.
  void (*fail)(const char* message);
  bool (*is_device_pointer)(const void* pointer);
};

/// What the simulator knows about one kernel.
struct KernelEntry {
  unsigned arguments_size;
  int max_threads;
  bool suspends;
  /// Copies the arguments of a launch into `storage`; returns the number of the first pointer that is none of the
  /// device's, or -1.
  int (*bind)(const DeviceApi& api, void** arguments, void* storage);
  void (*run_thread)(const void* storage);
  /// Runs a block as a plain loop over its threads, in the order given.
  void (*run_block)(const void* storage, ThreadState& state, const unsigned short* order, unsigned threads);
};

}  // namespace cudasim
