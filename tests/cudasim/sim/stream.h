// Streams and events. Work is queued, and runs only when somebody must wait for it: as late as events allow, so that a
// forgotten wait shows as a wrong result. With a seed, now and then some of it runs earlier.
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
  /// Waits for the default stream and is waited for by it.
  bool blocking = true;
  int priority = 0;
  int device = 0;
  std::deque<Work> queue;
  /// While captured: the capture, and the nodes that the next one follows.
  std::shared_ptr<Capture> capture;
  std::vector<size_t> frontier;
};

struct Event {
  bool timing = true;
  MarkerPointer marker;
  /// When it was recorded in a captured stream.
  std::shared_ptr<Capture> capture;
  std::vector<size_t> frontier;
};

Stream& default_stream();
/// Null if there is no such stream.
Stream* stream_of(StreamHandle handle);
const std::vector<Stream*>& all_streams();

/// Queues work, or adds it to the capture. Work does not run in a poisoned context.
int submit(Stream& stream, std::function<void()> run);
/// The same for what must happen even then: giving memory back.
int submit_always(Stream& stream, std::function<void()> run);
/// Queues as it is: neither captured nor refused.
void enqueue(Stream& stream, Work work);

/// Runs all that is queued in a stream, and what it waits for elsewhere.
void drain(Stream& stream);
void drain_all();

// ---- capture (graph.cpp) ----

bool capturing(const Stream& stream);
/// A call that a capturing stream does not allow: the capture is lost.
int violate_capture(Stream& stream, const std::string& call);
/// A call that no thread may make, or this one, while any stream is captured.
int refuse_in_any_capture(const std::string& call);
int capture_work(Stream& stream, std::function<void()> run);
int capture_record(Stream& stream, Event& event);
int capture_wait(Stream& stream, Event& event);

}  // namespace cudasim
