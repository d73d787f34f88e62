#include "stream.h"

#include <algorithm>
#include <chrono>
#include <unordered_set>

#include "device.h"
#include "state.h"

namespace cudasim {
namespace {

/// A GPU's queue is bounded too: above this limit, queueing work runs the oldest.
constexpr size_t queue_limit = 1024;

Stream legacy;
std::vector<Stream*> streams{&legacy};
std::unordered_set<Event*> events;

double now() {
  auto since = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double, std::milli>(since).count();
}

void run_front(Stream& stream);

void run_until(Marker& marker) {
  while (!marker.done && !marker.stream->queue.empty()) run_front(*marker.stream);
}

void run_front(Stream& stream) {
  Work work = std::move(stream.queue.front());
  stream.queue.pop_front();
  for (auto& marker : work.after) run_until(*marker);
  if (work.run) work.run();
}

/// With a seed, a random stream may run some or all of its queued work now.
void run_something() {
  if (!randomized() || random_below(4) != 0) return;
  Stream& stream = *streams[random_below(static_cast<unsigned>(streams.size()))];
  size_t pieces = random_below(2) == 0 ? stream.queue.size() : 1 + random_below(4);
  while (pieces-- > 0 && !stream.queue.empty()) run_front(stream);
}

/// The implicit synchronisation between the default stream and blocking streams.
std::vector<MarkerPointer> implicit_waits(Stream& stream) {
  std::vector<MarkerPointer> waits;
  auto wait_for = [&](Stream& other) {
    if (!other.queue.empty()) waits.push_back(mark(other));
  };
  if (&stream == &legacy) {
    for (Stream* other : streams)
      if (other != &legacy && other->blocking) wait_for(*other);
  } else if (stream.blocking) {
    wait_for(legacy);
  }
  return waits;
}

bool blocking_capture_exists() {
  return std::any_of(streams.begin(), streams.end(),
                     [](Stream* s) { return s->blocking && capturing(*s); });
}

Event* event_of(void* handle) {
  auto found = events.find(static_cast<Event*>(handle));
  return found == events.end() ? nullptr : *found;
}

}  // namespace

MarkerPointer mark(Stream& stream) {
  auto marker = std::make_shared<Marker>(Marker{&stream});
  enqueue(stream, {[marker] { marker->done = true, marker->milliseconds = now(); }, {}});
  return marker;
}

Stream& default_stream() { return legacy; }

const std::vector<Stream*>& all_streams() { return streams; }

Stream* stream_of(StreamHandle handle) {
  auto number = reinterpret_cast<size_t>(handle);
  if (number <= 2) return &legacy;  // null, CU_STREAM_LEGACY, CU_STREAM_PER_THREAD
  auto found = std::find(streams.begin(), streams.end(), handle);
  return found == streams.end() ? nullptr : *found;
}

void enqueue(Stream& stream, Work work) { stream.queue.push_back(std::move(work)); }

int submit_always(Stream& stream, std::function<void()> run) {
  enqueue(stream, {std::move(run), implicit_waits(stream)});
  if (stream.queue.size() > queue_limit) run_front(stream);
  run_something();
  return success;
}

int submit(Stream& stream, std::function<void()> run) {
  if (capturing(stream)) return capture_work(stream, std::move(run));
  if (&stream == &legacy && blocking_capture_exists()) return capture_implicit;
  submit_always(stream, [run = std::move(run)] {
    if (!poisoned()) run();
  });
  return success;  // if the work has already failed, the next call returns the error
}

void drain(Stream& stream) {
  while (!stream.queue.empty()) {
    run_front(stream);
    run_something();
  }
}

void drain_all() {
  for (Stream* stream : streams) drain(*stream);
}

// ---- streams ----

static int create_stream(StreamHandle* handle, unsigned flags, int priority) {
  Lock lock(mutex);
  CUDASIM_TRY(usable());
  constexpr unsigned non_blocking = 1;
  auto* stream = new Stream;
  stream->blocking = !(flags & non_blocking);
  stream->priority = priority;
  stream->device = current_context()->device;
  streams.push_back(stream);
  *handle = stream;
  return success;
}
CUDASIM_EXPORT int cuStreamCreate(StreamHandle* handle, unsigned flags) {
  return create_stream(handle, flags, 0);
}
CUDASIM_EXPORT int cuStreamCreateWithPriority(StreamHandle* handle, unsigned flags, int priority) {
  return create_stream(handle, flags, std::clamp(priority, -5, 0));
}

CUDASIM_EXPORT int cuStreamDestroy_v2(StreamHandle handle) {
  Lock lock(mutex);
  Stream* stream = stream_of(handle);
  if (!stream || stream == &legacy) return invalid_handle;
  drain(*stream);
  streams.erase(std::find(streams.begin(), streams.end(), stream));
  delete stream;
  return success;
}

CUDASIM_EXPORT int cuStreamSynchronize(StreamHandle handle) {
  Lock lock(mutex);
  CUDASIM_TRY(usable());
  Stream* stream = stream_of(handle);
  if (!stream) return invalid_handle;
  if (capturing(*stream)) return violate_capture(*stream, "cuStreamSynchronize");
  for (auto& marker : implicit_waits(*stream)) run_until(*marker);
  drain(*stream);
  return poisoned();
}

CUDASIM_EXPORT int cuStreamQuery(StreamHandle handle) {
  Lock lock(mutex);
  CUDASIM_TRY(usable());
  Stream* stream = stream_of(handle);
  if (!stream) return invalid_handle;
  if (capturing(*stream)) return violate_capture(*stream, "cuStreamQuery");
  if (stream->queue.empty()) return success;
  run_front(*stream);  // a polling loop must end
  CUDASIM_TRY(poisoned());
  return stream->queue.empty() ? success : not_ready;
}

CUDASIM_EXPORT int cuStreamGetPriority(StreamHandle handle, int* priority) {
  Lock lock(mutex);
  Stream* stream = stream_of(handle);
  if (!stream) return invalid_handle;
  *priority = stream->priority;
  return success;
}

CUDASIM_EXPORT int cuStreamGetFlags(StreamHandle handle, unsigned* flags) {
  Lock lock(mutex);
  Stream* stream = stream_of(handle);
  if (!stream) return invalid_handle;
  *flags = stream->blocking ? 0 : 1;
  return success;
}

CUDASIM_EXPORT int cuStreamWaitEvent(StreamHandle handle, void* event_handle, unsigned) {
  Lock lock(mutex);
  CUDASIM_TRY(usable());
  Stream* stream = stream_of(handle);
  Event* event = event_of(event_handle);
  if (!stream || !event) return invalid_handle;
  if (event->capture || capturing(*stream)) return capture_wait(*stream, *event);
  // An event that was never recorded blocks nothing.
  if (event->marker && !event->marker->done) enqueue(*stream, {nullptr, {event->marker}});
  return success;
}

CUDASIM_EXPORT int cuLaunchHostFunc(StreamHandle handle, void (*function)(void*), void* data) {
  Lock lock(mutex);
  CUDASIM_TRY(usable());
  Stream* stream = stream_of(handle);
  return stream ? submit(*stream, [=] { function(data); }) : invalid_handle;
}

// ---- events ----

CUDASIM_EXPORT int cuEventCreate(void** handle, unsigned flags) {
  Lock lock(mutex);
  CUDASIM_TRY(usable());
  constexpr unsigned disable_timing = 2;
  auto* event = new Event;
  event->timing = !(flags & disable_timing);
  events.insert(event);
  *handle = event;
  return success;
}

CUDASIM_EXPORT int cuEventDestroy_v2(void* handle) {
  Lock lock(mutex);
  Event* event = event_of(handle);
  if (!event) return invalid_handle;
  events.erase(event);
  delete event;
  return success;
}

static int record(void* event_handle, StreamHandle handle) {
  Lock lock(mutex);
  CUDASIM_TRY(usable());
  Stream* stream = stream_of(handle);
  Event* event = event_of(event_handle);
  if (!stream || !event) return invalid_handle;
  if (capturing(*stream)) return capture_record(*stream, *event);
  event->capture.reset();
  event->marker = mark(*stream);
  return success;
}
CUDASIM_EXPORT int cuEventRecord(void* event, StreamHandle stream) { return record(event, stream); }
CUDASIM_EXPORT int cuEventRecordWithFlags(void* event, StreamHandle stream, unsigned) {
  return record(event, stream);
}

CUDASIM_EXPORT int cuEventSynchronize(void* handle) {
  Lock lock(mutex);
  CUDASIM_TRY(usable());
  Event* event = event_of(handle);
  if (!event) return invalid_handle;
  if (event->capture) return captured_event;
  if (event->marker) run_until(*event->marker);
  return poisoned();
}

CUDASIM_EXPORT int cuEventQuery(void* handle) {
  Lock lock(mutex);
  CUDASIM_TRY(usable());
  Event* event = event_of(handle);
  if (!event) return invalid_handle;
  if (event->capture) return captured_event;
  if (!event->marker || event->marker->done) return success;
  run_front(*event->marker->stream);  // a polling loop must end
  CUDASIM_TRY(poisoned());
  return event->marker->done ? success : not_ready;
}

static int elapsed(float* milliseconds, void* start_handle, void* end_handle) {
  Lock lock(mutex);
  CUDASIM_TRY(usable());
  Event *start = event_of(start_handle), *end = event_of(end_handle);
  if (!start || !end || !start->timing || !end->timing || !start->marker || !end->marker)
    return invalid_handle;
  if (!start->marker->done || !end->marker->done) return not_ready;
  *milliseconds = static_cast<float>(end->marker->milliseconds - start->marker->milliseconds);
  return success;
}
CUDASIM_EXPORT int cuEventElapsedTime(float* ms, void* start, void* end) {
  return elapsed(ms, start, end);
}
CUDASIM_EXPORT int cuEventElapsedTime_v2(float* ms, void* start, void* end) {
  return elapsed(ms, start, end);
}

}  // namespace cudasim
