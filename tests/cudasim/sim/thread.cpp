#include "thread.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "sanitizer.h"
#include "state.h"

namespace cudasim {
namespace {

constexpr int poison_byte = 0xFF;
constexpr size_t shared_alignment = 128;

void* shared_memory(size_t bytes) {
  void* memory = nullptr;
  if (posix_memalign(&memory, shared_alignment, bytes)) std::abort();
  std::memset(memory, poison_byte, bytes);
  sanitizer::release(memory);  // the poison is written before any thread reads
  return memory;
}

}  // namespace

void Block::begin(Index3 at, unsigned count, size_t dynamic_bytes) {
  free_memory();
  index = at;
  threads.clear();
  alive = count;
  arrived = votes = result = 0;
  first = nullptr;
  dynamic_size = dynamic_bytes;
  warps.assign((count + 31) / 32, {});
  for (unsigned t = 0; t < count; t++) warps[t / 32].alive |= 1u << (t & 31);
}

void Block::free_memory() {
  std::free(dynamic);
  dynamic = nullptr;
  for (SharedArray& array : arrays) std::free(array.memory);
  arrays.clear();
  static_size = 0;
}

void* Block::static_array(const void* function, int declaration, size_t size) {
  for (SharedArray& array : arrays)
    if (array.function == function && array.declaration == declaration && array.size == size)
      return array.memory;
  static_size += size;
  arrays.push_back({function, declaration, size, shared_memory(size)});
  return arrays.back().memory;
}

void* Block::dynamic_array() {
  if (!dynamic) dynamic = shared_memory(std::max<size_t>(dynamic_size, 1));
  return dynamic;
}

uint32_t random_priority() { return 1 + random_below(1u << 20); }

void ReadyQueue::clear() {
  turns_.clear();
  heap_.clear();
  demoted_.clear();
}

void ReadyQueue::add(Thread* thread) {
  if (!randomized()) {
    turns_.push_back(thread);
    return;
  }
  heap_.emplace_back(thread->priority, thread);
  std::push_heap(heap_.begin(), heap_.end());
}

void ReadyQueue::add_demoted(Thread* thread) {
  if (randomized())
    demoted_.push_back(thread);
  else
    turns_.push_back(thread);
}

Thread* ReadyQueue::take() {
  if (!turns_.empty()) {
    Thread* next = turns_.front();
    turns_.pop_front();
    return next;
  }
  if (!heap_.empty()) {
    std::pop_heap(heap_.begin(), heap_.end());
    Thread* next = heap_.back().second;
    heap_.pop_back();
    return next;
  }
  if (demoted_.empty()) return nullptr;
  std::swap(demoted_[random_below(static_cast<unsigned>(demoted_.size()))], demoted_.back());
  Thread* next = demoted_.back();
  demoted_.pop_back();
  next->priority = random_priority();
  return next;
}

std::string describe(const ThreadState& s) {
  char text[112];
  std::snprintf(text, sizeof text, "block (%u,%u,%u) thread (%u,%u,%u)", s.block.x, s.block.y,
                s.block.z, s.thread.x, s.thread.y, s.thread.z);
  return text;
}

std::string describe(Site site) {
  return std::string(site.file ? site.file : "?") + ":" + std::to_string(site.line);
}

}  // namespace cudasim
