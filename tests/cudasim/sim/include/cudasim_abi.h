// The interface between the simulator and the kernels that it compiles. Both sides include this
// file. It includes nothing, since kernel source must not see more than with NVRTC.
#pragma once

namespace cudasim {

struct Index3 {
  unsigned x, y, z;
};

/// The position of the running CUDA thread.
struct ThreadState {
  Index3 thread, block, block_dim, grid_dim;
  unsigned lane;
};

/// A position in the kernel's source. It identifies a barrier. Return addresses would not, since
/// the compiler may copy a call into both arms of a branch or unroll it.
struct Site {
  const char* file;
  int line;
};

enum class Vote { none, count, all, any };

/// The computation of a warp collective. `lanes[i]` is the operand of lane i, null for a lane that
/// does not take part.
using Combine = void (*)(unsigned mask, void* const* lanes);

/// The simulator's functions for kernels. Functions whose names begin with `suspend_` may let other
/// threads run. A kernel that cannot reach any of them runs as a plain loop (see source.cpp, which
/// looks for these names).
struct DeviceApi {
  ThreadState* current;
  int (*suspend_block_barrier)(Site site, Vote vote, int predicate);
  void (*suspend_warp_collective)(Site site, unsigned mask, Combine combine, void* operand);
  /// The thread is idle until other threads make progress.
  void (*suspend_yield)();
  /// The thread reads a flag that another thread may set.
  void (*suspend_poll)();
  /// A random schedule may switch to another thread here.
  void (*preempt)();
  /// Poisoned shared memory of the running block, one array per function (each template instance
  /// counts) and declaration.
  void* (*static_shared)(const void* function, int declaration, unsigned long size);
  void* (*dynamic_shared)();
  /// `copy` performs the copy. It is kernel code, so that a sanitizer observes it.
  void (*copy_async)(void* shared, const void* global, unsigned bytes,
                     void (*copy)(void* to, const void* from));
  void (*copy_async_commit)();
  void (*copy_async_wait)(unsigned pending_groups);
  /// Stops the kernel with a report.
  void (*fail)(const char* message);
  bool (*is_device_pointer)(const void* pointer);
};

/// The description of one kernel.
struct KernelEntry {
  unsigned arguments_size;
  /// The size of each argument, and their number.
  const unsigned* argument_sizes;
  unsigned arguments;
  int max_threads;
  bool suspends;
  /// Copies the arguments of a launch into `storage`. Returns the index of the first pointer that
  /// is not a device pointer, or -1.
  int (*bind)(const DeviceApi& api, void** arguments, void* storage);
  void (*run_thread)(const void* storage);
  /// Runs a block as a plain loop over its threads, in the given order.
  void (*run_block)(const void* storage, ThreadState& state, const unsigned short* order,
                    unsigned threads);
};

}  // namespace cudasim
