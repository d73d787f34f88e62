// NVTX: counts the ranges that are begun, and checks that each is ended.
#include <string>
#include <unordered_map>

#include "state.h"

namespace cudasim {
namespace {

std::unordered_map<std::string, uint64_t> ranges;
thread_local int depth = 0;

}  // namespace

CUDASIM_EXPORT int nvtxRangePushA(const char* name) {
  Lock lock(mutex);
  ranges[name]++;
  return depth++;
}

CUDASIM_EXPORT int nvtxRangePop() {
  Lock lock(mutex);
  if (depth == 0) {
    report("a range is ended that was not begun on this thread");
    return -1;
  }
  return --depth;
}

CUDASIM_EXPORT unsigned long long cudasim_ranges(const char* name) {
  Lock lock(mutex);
  auto found = ranges.find(name);
  return found == ranges.end() ? 0 : found->second;
}

/// The ranges that this thread has begun and not ended.
CUDASIM_EXPORT int cudasim_range_depth() { return depth; }

}  // namespace cudasim
