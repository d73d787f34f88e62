// One fiber per device thread, all on the host thread that waits for the kernel, so that a seed
// reproduces a schedule. Kernels in which no thread ever waits for another run as plain loops.
#include "scheduler.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <numeric>

#include "device.h"
#include "fault.h"
#include "memory.h"
#include "sanitizer.h"
#include "state.h"
#include "thread.h"

namespace cudasim {
namespace {

/// Yields without progress after which the kernel counts as stuck.
constexpr uint64_t idle_yield_limit = 20'000'000;
/// Reads of a flag after which a thread without `__nanosleep` lets others run.
constexpr unsigned polls_before_yield = 64;
/// ThreadSanitizer supports about 8000 fibers.
constexpr unsigned most_sanitized_threads = 2048;

/// Thrown to leave a kernel that runs as a plain loop.
struct Stop {};

/// The state of the running kernel.
struct Execution {
  const Launch* launch = nullptr;
  Thread* current = nullptr;
  /// Set while the kernel runs as a plain loop.
  Block* plain_block = nullptr;
  bool failed = false;
  uint64_t idle_yields = 0;
  std::vector<std::unique_ptr<Thread>> threads;
  std::vector<std::unique_ptr<Block>> blocks;
  ReadyQueue ready;
  DeviceApi api{};
};

Execution execution;
char start_token, end_token;

void fail(const std::string& what, Status status = launch_failed) {
  if (execution.failed) return;
  execution.failed = true;
  poison(status, "kernel '" + execution.launch->kernel + "': " + what);
}

void fail_at(const void* address) {
  char text[32];
  std::snprintf(text, sizeof text, "%p", address);
  fail("access to the illegal address " + std::string(text) + " in " +
           describe(*execution.api.current),
       illegal_address);
}

/// Ends the running thread after a failure.
[[noreturn]] void stop_thread() {
  if (!execution.current) throw Stop{};
  execution.current->finish();
}

/// The running thread, for calls that wait for other threads.
Thread& waiting_thread() {
  if (execution.current) return *execution.current;
  fail(
      "a thread waits for others in a kernel that seemed to have no barrier; call barriers by "
      "name, not through pointers");
  stop_thread();
}

void make_ready(Thread& thread) {
  thread.wait = Wait::nothing;
  if (randomized() && random_below(8) == 0) thread.priority = random_priority();
  execution.ready.add(&thread);
}

// ---- the barrier of a block ----

void open_barrier(Block& block) {
  block.result = block.votes;
  block.voters = block.arrived;
  block.votes = block.arrived = 0;
  block.first = nullptr;
  execution.idle_yields = 0;
  for (Thread* thread : block.threads)
    if (thread->wait == Wait::barrier) make_ready(*thread);
}

int block_barrier(Site site, Vote vote, int predicate) {
  Thread& me = waiting_thread();
  Block& block = *me.block;
  if (!block.first) {
    block.first = &me;
  } else if (Site other = block.first->site;
             other.line != site.line || std::strcmp(other.file, site.file) != 0) {
    fail("divergent barrier: " + describe(me.state) + " is at " + describe(site) + " while " +
         describe(block.first->state) + " waits at " + describe(other));
    stop_thread();
  }
  me.site = site;
  me.wait = Wait::barrier;
  sanitizer::release(&block);
  block.votes += predicate != 0;
  if (++block.arrived == block.alive) open_barrier(block);
  me.suspend();
  sanitizer::acquire(&block);
  switch (vote) {
    case Vote::all: return block.result == block.voters;
    case Vote::any: return block.result != 0;
    default: return static_cast<int>(block.result);
  }
}

// ---- collectives of a warp ----

Thread* lane_of(Block& block, size_t warp, unsigned lane) {
  size_t at = warp * 32 + lane;
  return at < block.threads.size() ? block.threads[at] : nullptr;
}

/// Runs a collective once all of its lanes that are alive have arrived.
void hold_meeting(Block& block, size_t warp_index, Meeting& meeting) {
  Warp& warp = block.warps[warp_index];
  if (meeting.arrived == 0 || meeting.arrived != (meeting.mask & warp.alive)) return;
  void* operands[32] = {};
  for (unsigned lane = 0; lane < 32; lane++)
    if (meeting.arrived >> lane & 1) operands[lane] = lane_of(block, warp_index, lane)->operand;
  sanitizer::acquire(&warp);
  meeting.combine(meeting.mask, operands);
  sanitizer::release(&warp);
  for (unsigned lane = 0; lane < 32; lane++)
    if (meeting.arrived >> lane & 1) make_ready(*lane_of(block, warp_index, lane));
  meeting.arrived = 0;
}

Meeting& meeting_for(Warp& warp, unsigned mask) {
  Meeting* free = nullptr;
  for (Meeting& meeting : warp.meetings) {
    if (meeting.arrived && meeting.mask == mask) return meeting;
    if (!meeting.arrived && !free) free = &meeting;
  }
  free->mask = mask;  // 32 lanes cannot be in more than 32 meetings
  free->combine = nullptr;
  return *free;
}

void warp_collective(Site site, unsigned mask, Combine combine, void* operand) {
  Thread& me = waiting_thread();
  const unsigned lane = me.state.lane;
  const size_t warp_index = me.number / 32;
  Warp& warp = me.block->warps[warp_index];
  me.site = site;
  if (!(mask >> lane & 1)) {
    fail("warp collective: " + describe(me.state) + " at " + describe(site) +
         " is not named in its own mask");
    stop_thread();
  }
  Meeting& meeting = meeting_for(warp, mask);
  if (meeting.arrived && meeting.combine != combine) {
    fail("divergent warp collective: " + describe(me.state) + " at " + describe(site) +
         " meets lanes of its warp in a different one");
    stop_thread();
  }
  meeting.combine = combine;
  meeting.arrived |= 1u << lane;
  me.wait = Wait::warp;
  me.mask = mask;
  // Null means that a lane does not take part.
  static char no_operand;
  me.operand = operand ? operand : &no_operand;
  sanitizer::release(&warp);
  hold_meeting(*me.block, warp_index, meeting);
  me.suspend();
  sanitizer::acquire(&warp);
}

// ---- points where other threads may run ----

void yield() {
  Thread& me = waiting_thread();
  if (++execution.idle_yields > idle_yield_limit) {
    fail("no progress: threads only wait for flags, for instance " + describe(me.state));
    stop_thread();
  }
  execution.ready.add_demoted(&me);
  me.suspend();
}

void preempt() {
  Thread* me = execution.current;
  if (!me || !randomized() || random_below(64) != 0) return;
  me->priority = random_priority();
  execution.ready.add(me);
  me->suspend();
}

void poll() {
  Thread& me = waiting_thread();
  if (++me.polls % polls_before_yield == 0)
    yield();
  else
    preempt();
}

// ---- shared memory ----

Block& running_block() {
  return execution.current ? *execution.current->block : *execution.plain_block;
}

void* static_shared(const void* function, int declaration, unsigned long size) {
  Block& block = running_block();
  void* memory = block.static_array(function, declaration, size);
  if (block.static_size > default_block_shared ||
      block.static_size + block.dynamic_size > max_block_shared) {
    fail("more shared memory than a block has: " + std::to_string(block.static_size) +
         " bytes declared, " + std::to_string(block.dynamic_size) + " given at launch");
    stop_thread();
  }
  sanitizer::acquire(memory);
  return memory;
}

void* dynamic_shared() {
  void* memory = running_block().dynamic_array();
  sanitizer::acquire(memory);
  return memory;
}

void copy_async(void* shared, const void* global, unsigned bytes,
                void (*make)(void*, const void*)) {
  if (reinterpret_cast<uintptr_t>(shared) % bytes || reinterpret_cast<uintptr_t>(global) % bytes) {
    fail("an asynchronous copy of " + std::to_string(bytes) +
         " bytes between addresses that are not aligned to them");
    stop_thread();
  }
  Thread* me = execution.current;
  // With a random schedule some copies run at once; otherwise as late as allowed.
  if (!me || (randomized() && random_below(2) == 0)) return make(shared, global);
  me->copies.push_back({shared, global, make, me->copy_group});
}

void copy_async_commit() {
  if (execution.current) execution.current->copy_group++;
}

void copy_async_wait(unsigned pending_groups) {
  Thread* me = execution.current;
  if (!me) return;
  auto due = [&](const AsyncCopy& copy) { return copy.group + pending_groups < me->copy_group; };
  for (const AsyncCopy& copy : me->copies)
    if (due(copy)) copy.make(copy.to, copy.from);
  me->copies.erase(std::remove_if(me->copies.begin(), me->copies.end(), due), me->copies.end());
}

void fail_from_kernel(const char* message) {
  fail(message + (" in " + describe(*execution.api.current)));
  stop_thread();
}

bool is_device_pointer(const void* pointer) {
  // A launch may pass a pointer one past the end.
  return on_device(pointer, 0) || on_device(static_cast<const char*>(pointer) - 1, 1);
}

// ---- running a kernel ----

/// All blocks of the grid, in execution order.
class BlockOrder {
 public:
  explicit BlockOrder(const Launch& launch)
      : grid_(launch.grid), count_(size_t{grid_.x} * grid_.y * grid_.z) {
    if (!randomized()) return;
    order_.resize(count_);
    std::iota(order_.begin(), order_.end(), 0u);
    for (size_t i = count_; i > 1; i--)
      std::swap(order_[i - 1], order_[random_below(static_cast<unsigned>(i))]);
  }
  size_t count() const { return count_; }
  Index3 operator[](size_t i) const {
    auto at = static_cast<unsigned>(order_.empty() ? i : order_[i]);
    return {at % grid_.x, at / grid_.x % grid_.y, at / grid_.x / grid_.y};
  }

 private:
  Index3 grid_;
  size_t count_;
  std::vector<unsigned> order_;
};

void run_as_loops(const Launch& launch, unsigned threads) {
  std::vector<unsigned short> order(threads);
  std::iota(order.begin(), order.end(), static_cast<unsigned short>(0));
  if (randomized())
    for (unsigned i = threads; i > 1; i--) std::swap(order[i - 1], order[random_below(i)]);
  ThreadState state{{}, {}, launch.block, launch.grid, 0};
  Block block;
  execution.api.current = &state;
  execution.plain_block = &block;
  BlockOrder blocks(launch);
  FaultGuard guard;
  if (sigsetjmp(guard.back, 1)) {
    fail_at(guard.address);
  } else {
    try {
      for (size_t i = 0; i < blocks.count() && !execution.failed; i++) {
        block.begin(blocks[i], 0, launch.dynamic_shared);
        state.block = block.index;
        launch.entry->run_block(launch.arguments, state, order.data(), threads);
      }
    } catch (const Stop&) {
    }
  }
  execution.plain_block = nullptr;
}

void thread_body(Fiber& fiber) {
  auto& me = static_cast<Thread&>(fiber);
  sanitizer::acquire(&start_token);
  execution.launch->entry->run_thread(execution.launch->arguments);
  sanitizer::release(&end_token);
  me.wait = Wait::done;
  execution.idle_yields = 0;
  // Barriers and collectives wait only for threads that are still running.
  Block& block = *me.block;
  Warp& warp = block.warps[me.number / 32];
  warp.alive &= ~(1u << me.state.lane);
  for (Meeting& meeting : warp.meetings) hold_meeting(block, me.number / 32, meeting);
  if (--block.alive != 0 && block.arrived == block.alive) open_barrier(block);
}

void begin_thread(Thread& thread, Block& block, unsigned number, const Launch& launch) {
  const Index3 size = launch.block;
  thread.state = {{number % size.x, number / size.x % size.y, number / size.x / size.y},
                  block.index,
                  launch.block,
                  launch.grid,
                  number & 31};
  thread.block = &block;
  thread.number = number;
  thread.wait = Wait::nothing;
  thread.priority = randomized() ? random_priority() : 0;
  thread.polls = thread.copy_group = 0;
  thread.copies.clear();
  thread.prepare(thread_body);
  block.threads.push_back(&thread);
  execution.ready.add(&thread);
}

void report_deadlock(size_t threads) {
  std::string text = "deadlock:";
  int named = 0;
  size_t waiting = 0;
  for (size_t i = 0; i < threads; i++) {
    const Thread& thread = *execution.threads[i];
    if (thread.wait == Wait::done) continue;
    waiting++;
    if (named++ < 4)
      text += " [" + describe(thread.state) + " waits " +
              (thread.wait == Wait::barrier ? "at the barrier " : "in the warp collective ") +
              describe(thread.site) + "]";
  }
  fail(text + " (" + std::to_string(waiting) + " threads wait)");
}

/// Number of blocks that are resident at once. Cooperative: all. Otherwise one, but several with a
/// random schedule or ThreadSanitizer, since a GPU runs several too.
size_t resident_blocks(const Launch& launch, size_t blocks, unsigned threads) {
  if (launch.cooperative) return blocks;
  if (sanitizer::mode() == sanitizer::Mode::thread)
    return std::max(1u, most_sanitized_threads / threads);
  return randomized() ? 1 + random_below(4) : 1;
}

/// Runs threads until none is ready.
void run_ready_threads() {
  FaultGuard guard;
  if (sigsetjmp(guard.back, 1)) {
    fail_at(guard.address);
  } else {
    while (!execution.failed) {
      Thread* next = execution.ready.take();
      if (!next) break;
      execution.current = next;
      execution.api.current = &next->state;
      next->resume();
    }
  }
  execution.current = nullptr;
}

void run_resident(const Launch& launch, const BlockOrder& order, size_t first, size_t count,
                  unsigned threads) {
  while (execution.blocks.size() < count) execution.blocks.push_back(std::make_unique<Block>());
  while (execution.threads.size() < count * threads)
    execution.threads.push_back(std::make_unique<Thread>());
  execution.ready.clear();
  sanitizer::release(&start_token);
  for (size_t b = 0; b < count; b++) {
    Block& block = *execution.blocks[b];
    block.begin(order[first + b], threads, launch.dynamic_shared);
    for (unsigned t = 0; t < threads; t++)
      begin_thread(*execution.threads[b * threads + t], block, t, launch);
  }
  run_ready_threads();
  const size_t all = count * threads;
  auto done = [](const auto& thread) { return thread->wait == Wait::done; };
  auto begin = execution.threads.begin();
  if (!execution.failed && !std::all_of(begin, begin + static_cast<long>(all), done))
    report_deadlock(all);
  sanitizer::acquire(&end_token);
  for (size_t i = 0; i < all; i++) execution.threads[i]->retire();
  for (size_t b = 0; b < count; b++) execution.blocks[b]->free_memory();
}

void run_as_fibers(const Launch& launch, unsigned threads) {
  BlockOrder order(launch);
  for (size_t at = 0; at < order.count() && !execution.failed;) {
    size_t count = std::min(resident_blocks(launch, order.count(), threads), order.count() - at);
    run_resident(launch, order, at, count, threads);
    at += count;
  }
}

}  // namespace

void run(const Launch& launch) {
  if (poisoned()) return;
  execution.launch = &launch;
  execution.failed = false;
  execution.idle_yields = 0;
  const unsigned threads = launch.block.x * launch.block.y * launch.block.z;
  // ThreadSanitizer must see each device thread as its own fiber.
  if (launch.entry->suspends || sanitizer::mode() == sanitizer::Mode::thread)
    run_as_fibers(launch, threads);
  else
    run_as_loops(launch, threads);
  execution.launch = nullptr;
}

const DeviceApi& device_api() {
  execution.api = {execution.api.current,
                   block_barrier,
                   warp_collective,
                   yield,
                   poll,
                   preempt,
                   static_shared,
                   dynamic_shared,
                   copy_async,
                   copy_async_commit,
                   copy_async_wait,
                   fail_from_kernel,
                   is_device_pointer};
  return execution.api;
}

}  // namespace cudasim
