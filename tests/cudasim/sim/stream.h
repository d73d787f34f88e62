// Streams and events. Work is queued and runs only when a call must wait for it: as late as events
// allow, so that a missing wait causes a wrong result. With a seed, some of it runs earlier at
// random.
#pragma once
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace cudasim {

using StreamHandle = void*;
struct Capture;
struct Stream;

/// A point in a stream that was recorded once.
struct Marker {
  Stream* stream;
  bool done = false;
  double milliseconds = 0;
};
using MarkerPointer = std::shared_ptr<Marker>;

struct Work {
  std::function<void()> run;
  std::vector<MarkerPointer> after;
};

struct Stream {
  /// Waits for the default stream, and the default stream waits for it.
  bool blocking = true;
  int priority = 0;
  int device = 0;
  std::deque<Work> queue;
  /// While captured: the capture, and the predecessors of the next node.
  std::shared_ptr<Capture> capture;
  std::vector<size_t> frontier;
};

struct Event {
  bool timing = true;
  MarkerPointer marker;
  /// The capture, if the event was recorded in a captured stream.
  std::shared_ptr<Capture> capture;
  std::vector<size_t> frontier;
};

Stream& default_stream();
/// Null if there is no such stream.
Stream* stream_of(StreamHandle handle);
const std::vector<Stream*>& all_streams();

/// Queues work, or adds it to the capture. Work does not run in a poisoned context.
int submit(Stream& stream, std::function<void()> run);
/// Like `submit`, for work that also runs in a poisoned context: freeing memory.
int submit_always(Stream& stream, std::function<void()> run);
/// Queues work without capture or checks.
void enqueue(Stream& stream, Work work);
/// Queues a marker: all work queued before it has run once it is done.
MarkerPointer mark(Stream& stream);

/// Runs all queued work of a stream, and the work in other streams that it waits for.
void drain(Stream& stream);
void drain_all();

// ---- capture (graph.cpp) ----

bool capturing(const Stream& stream);
/// Reports a call that is not allowed while capturing, and invalidates the capture.
int violate_capture(Stream& stream, const std::string& call);
/// Refuses a call that is not allowed while any stream is captured, depending on the capture mode.
int refuse_in_any_capture(const std::string& call);
/// Invalidates all captures, as a library does that creates contexts or waits for the device.
void break_captures(const std::string& call);
int capture_work(Stream& stream, std::function<void()> run);
int capture_record(Stream& stream, Event& event);
int capture_wait(Stream& stream, Event& event);

}  // namespace cudasim
