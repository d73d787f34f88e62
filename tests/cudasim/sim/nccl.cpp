// NCCL: communicators between threads of this process, and groups of sends and receptions. The end
// of a group waits for the other ranks. What arrives is written by the stream, as late as events
// allow, so that a missing wait gives a wrong result.
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <deque>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "device.h"
#include "memory.h"
#include "state.h"
#include "stream.h"

namespace cudasim {
namespace {

enum Result { ok = 0, unhandled_cuda_error = 1, invalid_argument = 4, invalid_usage = 5 };

struct Id {
  char bytes[128];
};

/// The ranks with one id.
struct Job {
  int size = 0;
  std::set<int> ranks;
  std::set<int> devices;
  bool duplicate = false;
  std::map<std::pair<int, int>, std::deque<std::vector<char>>> mail;
};

struct Communicator {
  Job* job;
  int rank;
};

struct Transfer {
  bool sends;
  uintptr_t address;
  size_t bytes;
  int peer;
  Communicator* communicator;
  StreamHandle stream;
};

std::mutex jobs_mutex;
std::condition_variable changed;
std::map<std::string, Job> jobs;
uint64_t ids = 0;
thread_local int depth = 0;
thread_local std::vector<Transfer> group;

int send(const Transfer& transfer) {
  std::vector<char> bytes(transfer.bytes);
  {
    Lock lock(mutex);
    if (usable() != success) return unhandled_cuda_error;
    Stream* stream = stream_of(transfer.stream);
    auto from = reinterpret_cast<const void*>(transfer.address);
    if (!stream || !check_access(from, transfer.bytes, "ncclSend")) return invalid_argument;
    drain(*stream);
    std::memcpy(bytes.data(), from, transfer.bytes);
  }
  std::lock_guard<std::mutex> lock(jobs_mutex);
  Communicator& communicator = *transfer.communicator;
  communicator.job->mail[{communicator.rank, transfer.peer}].push_back(std::move(bytes));
  changed.notify_all();
  return ok;
}

int receive(const Transfer& transfer) {
  std::vector<char> bytes;
  {
    std::unique_lock<std::mutex> lock(jobs_mutex);
    Communicator& communicator = *transfer.communicator;
    auto& mail = communicator.job->mail[{transfer.peer, communicator.rank}];
    changed.wait(lock, [&] { return !mail.empty(); });
    bytes = std::move(mail.front());
    mail.pop_front();
  }
  if (bytes.size() != transfer.bytes) return invalid_usage;
  Lock lock(mutex);
  Stream* stream = stream_of(transfer.stream);
  auto to = reinterpret_cast<void*>(transfer.address);
  if (!stream || !check_access(to, transfer.bytes, "ncclRecv")) return invalid_argument;
  return submit(*stream, [to, bytes] { std::memcpy(to, bytes.data(), bytes.size()); }) == success
             ? ok
             : unhandled_cuda_error;
}

int queue(Transfer transfer) {
  if (depth == 0 || !transfer.communicator) return invalid_usage;
  if (transfer.peer < 0 || transfer.peer >= transfer.communicator->job->size)
    return invalid_argument;
  group.push_back(transfer);
  return ok;
}

}  // namespace

CUDASIM_EXPORT int ncclGetUniqueId(Id* id) {
  std::lock_guard<std::mutex> lock(jobs_mutex);
  std::memset(id, 0, sizeof *id);
  std::strcpy(id->bytes, ("simulated job " + std::to_string(++ids)).c_str());
  return ok;
}

CUDASIM_EXPORT int ncclCommInitRank(void** communicator, int size, Id id, int rank) {
  int device = 0;
  {
    Lock lock(mutex);
    if (!current_context()) return unhandled_cuda_error;
    device = current_context()->device;
  }
  std::unique_lock<std::mutex> lock(jobs_mutex);
  Job& job = jobs[id.bytes];
  if (rank < 0 || rank >= size || (job.size && job.size != size)) return invalid_argument;
  job.size = size;
  if (!job.ranks.insert(rank).second) return invalid_argument;
  if (!job.devices.insert(device).second) job.duplicate = true;
  changed.notify_all();
  changed.wait(lock, [&] { return job.ranks.size() == static_cast<size_t>(size); });
  if (job.duplicate) return invalid_usage;
  *communicator = new Communicator{&job, rank};
  return ok;
}

CUDASIM_EXPORT int ncclCommDestroy(void* communicator) {
  delete static_cast<Communicator*>(communicator);
  return ok;
}
CUDASIM_EXPORT int ncclCommAbort(void* communicator) { return ncclCommDestroy(communicator); }

CUDASIM_EXPORT int ncclCommGetAsyncError(void*, int* error) {
  *error = ok;
  return ok;
}

CUDASIM_EXPORT int ncclGroupStart() {
  ++depth;
  return ok;
}

CUDASIM_EXPORT int ncclGroupEnd() {
  if (depth == 0) return invalid_usage;
  if (--depth > 0) return ok;
  std::vector<Transfer> transfers;
  transfers.swap(group);
  // All sends first: ranks that send to each other would wait for ever.
  for (bool sends : {true, false}) {
    for (const Transfer& transfer : transfers) {
      if (transfer.sends != sends) continue;
      CUDASIM_TRY(sends ? send(transfer) : receive(transfer));
    }
  }
  return ok;
}

CUDASIM_EXPORT int ncclSend(const void* from, size_t count, int, int peer, void* communicator,
                            StreamHandle stream) {
  auto of = static_cast<Communicator*>(communicator);
  return queue({true, reinterpret_cast<uintptr_t>(from), count, peer, of, stream});
}
CUDASIM_EXPORT int ncclRecv(void* to, size_t count, int, int peer, void* communicator,
                            StreamHandle stream) {
  auto of = static_cast<Communicator*>(communicator);
  return queue({false, reinterpret_cast<uintptr_t>(to), count, peer, of, stream});
}

CUDASIM_EXPORT const char* ncclGetErrorString(int code) {
  switch (code) {
    case ok: return "no error";
    case unhandled_cuda_error: return "unhandled cuda error";
    case invalid_argument: return "invalid argument";
    default: return "invalid usage";
  }
}

}  // namespace cudasim
