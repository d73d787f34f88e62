// Threads and blocks of a running kernel, and the queue of runnable threads.
#pragma once
#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "fiber.h"
#include "include/cudasim_abi.h"

namespace cudasim {

struct Block;

enum class Wait { nothing, barrier, warp, done };

/// A copy to shared memory that is issued and not yet performed.
struct AsyncCopy {
  void* to;
  const void* from;
  void (*make)(void* to, const void* from);
  unsigned group;
};

struct Thread : Fiber {
  ThreadState state{};
  Block* block = nullptr;
  /// Index in its block.
  unsigned number = 0;
  Wait wait = Wait::nothing;
  /// The call at which the thread waits.
  Site site{};
  /// The mask of the warp collective at which the thread waits.
  unsigned mask = 0;
  void* operand = nullptr;
  uint32_t priority = 0;
  unsigned polls = 0;
  unsigned copy_group = 0;
  std::vector<AsyncCopy> copies;
};

/// Lanes of a warp that are gathering for one collective.
struct Meeting {
  unsigned mask = 0;
  unsigned arrived = 0;
  Combine combine = nullptr;
};

struct Warp {
  unsigned alive = 0;
  /// Lanes with different masks may gather at the same time.
  std::array<Meeting, 32> meetings;
};

struct SharedArray {
  const void* function;
  int declaration;
  size_t size;
  void* memory;
};

struct Block {
  Index3 index{};
  std::vector<Thread*> threads;
  unsigned alive = 0;
  // The current barrier; the first thread to arrive identifies it.
  unsigned arrived = 0;
  Thread* first = nullptr;
  unsigned votes = 0;
  // The result of the last barrier that opened.
  unsigned result = 0;
  unsigned voters = 0;
  std::vector<Warp> warps;
  size_t dynamic_size = 0;
  void* dynamic = nullptr;
  size_t static_size = 0;
  std::vector<SharedArray> arrays;

  ~Block() { free_memory(); }
  void begin(Index3 index, unsigned threads, size_t dynamic_size);
  void free_memory();
  void* static_array(const void* function, int declaration, size_t size);
  void* dynamic_array();
};

/// Runnable threads. Without a seed, the order is round-robin. With a seed, each thread has a
/// random priority, and the highest runs until it must wait: unfair schedules expose missing
/// barriers. A thread that spins loses its priority.
class ReadyQueue {
 public:
  void clear();
  void add(Thread* thread);
  void add_demoted(Thread* thread);
  /// Null if no thread is runnable.
  Thread* take();

 private:
  std::deque<Thread*> turns_;
  std::vector<std::pair<uint32_t, Thread*>> heap_;
  std::vector<Thread*> demoted_;
};

uint32_t random_priority();

std::string describe(const ThreadState& state);
std::string describe(Site site);

}  // namespace cudasim
