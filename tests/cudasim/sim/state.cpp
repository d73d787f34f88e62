#include "state.h"

#include <cstdlib>
#include <unordered_map>

#include "device.h"

namespace cudasim {

Settings settings;
std::string cache_folder;
std::recursive_mutex mutex;

namespace {

uint64_t generator = 0;
int poison_status = success;
std::string latest_report;
std::unordered_map<std::string, uint64_t> launch_counts;

}  // namespace

bool randomized() { return settings.seed != 0; }

void seed_schedule(uint64_t seed) {
  settings.seed = seed;
  generator = seed * 0x9E3779B97F4A7C15ull | 1;
}

unsigned random_below(unsigned n) {
  generator ^= generator << 13;
  generator ^= generator >> 7;
  generator ^= generator << 17;
  return static_cast<unsigned>((generator >> 16) % n);
}

int poisoned() { return poison_status; }

void report(const std::string& text) {
  if (poison_status == success) latest_report = text;
}

void poison(int status, const std::string& text) {
  if (poison_status != success) return;
  latest_report = text;
  poison_status = status;
}

std::string last_report() { return latest_report; }

void clear_error() {
  poison_status = success;
  latest_report.clear();
}

int usable() {
  if (!current_context()) return invalid_context;
  return poison_status;
}

void count_launch(const std::string& kernel) { launch_counts[kernel]++; }

uint64_t launches(const std::string& kernel) {
  if (!kernel.empty()) {
    auto found = launch_counts.find(kernel);
    return found == launch_counts.end() ? 0 : found->second;
  }
  uint64_t all = 0;
  for (auto& [name, count] : launch_counts) all += count;
  return all;
}

void forget_launches() { launch_counts.clear(); }

}  // namespace cudasim
