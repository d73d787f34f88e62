// Graphs by stream capture. A graph stores the dependencies of its nodes, so that a replay with a
// seed can choose any order that the captured events allow.
#include <algorithm>
#include <chrono>
#include <set>
#include <thread>

#include "memory.h"
#include "state.h"
#include "stream.h"

namespace cudasim {

struct Node {
  std::function<void()> run;
  std::vector<size_t> after;
};

struct Graph {
  std::vector<Node> nodes;
};

enum class CaptureMode { global, thread_local_, relaxed };

struct Capture {
  std::shared_ptr<Graph> graph = std::make_shared<Graph>();
  Stream* origin;
  CaptureMode mode;
  std::thread::id thread = std::this_thread::get_id();
  bool lost = false;
};

namespace {

// A handle owns its graph; queued replays share it.
struct GraphHandle {
  std::shared_ptr<Graph> graph;
  /// Device memory of an executable graph.
  size_t bytes = 0;
};

constexpr size_t node_bytes = 512;

std::set<GraphHandle*> graphs;

bool valid(GraphHandle* handle) { return graphs.count(handle) != 0; }

void replay(const Graph& graph) {
  const size_t count = graph.nodes.size();
  if (!randomized()) {
    for (auto& node : graph.nodes) node.run();  // the order of capture respects all edges
    return;
  }
  std::vector<size_t> missing(count), ready;
  std::vector<std::vector<size_t>> followers(count);
  for (size_t i = 0; i < count; i++) {
    missing[i] = graph.nodes[i].after.size();
    for (size_t before : graph.nodes[i].after) followers[before].push_back(i);
    if (missing[i] == 0) ready.push_back(i);
  }
  while (!ready.empty()) {
    std::swap(ready[random_below(static_cast<unsigned>(ready.size()))], ready.back());
    size_t next = ready.back();
    ready.pop_back();
    graph.nodes[next].run();
    for (size_t follower : followers[next])
      if (--missing[follower] == 0) ready.push_back(follower);
  }
}

/// Whether every node is one of `ends` or precedes one.
bool joined(const Graph& graph, const std::vector<size_t>& ends) {
  std::vector<bool> reached(graph.nodes.size());
  for (size_t end : ends) reached[end] = true;
  for (size_t i = graph.nodes.size(); i-- > 0;)
    if (reached[i])
      for (size_t before : graph.nodes[i].after) reached[before] = true;
  return std::all_of(reached.begin(), reached.end(), [](bool b) { return b; });
}

void merge(std::vector<size_t>& into, const std::vector<size_t>& from) {
  for (size_t node : from)
    if (std::find(into.begin(), into.end(), node) == into.end()) into.push_back(node);
}

}  // namespace

bool capturing(const Stream& stream) { return stream.capture != nullptr; }

int violate_capture(Stream& stream, const std::string& call) {
  report(call + " is not allowed while the stream is captured");
  stream.capture->lost = true;
  return capture_unsupported;
}

int refuse_in_any_capture(const std::string& call) {
  for (Stream* stream : all_streams()) {
    if (!capturing(*stream)) continue;
    const Capture& capture = *stream->capture;
    bool concerns =
        capture.mode == CaptureMode::global || (capture.mode == CaptureMode::thread_local_ &&
                                                capture.thread == std::this_thread::get_id());
    if (concerns) return violate_capture(*stream, call);
  }
  return success;
}

void break_captures(const std::string& call) {
  for (Stream* stream : all_streams())
    if (capturing(*stream)) violate_capture(*stream, call);
}

int capture_work(Stream& stream, std::function<void()> run) {
  Capture& capture = *stream.capture;
  if (capture.lost) return capture_invalidated;
  capture.graph->nodes.push_back({std::move(run), stream.frontier});
  stream.frontier = {capture.graph->nodes.size() - 1};
  return success;
}

int capture_record(Stream& stream, Event& event) {
  event.marker.reset();
  event.capture = stream.capture;
  event.frontier = stream.frontier;
  return success;
}

int capture_wait(Stream& stream, Event& event) {
  if (!event.capture) {
    // The event was recorded outside the capture.
    stream.capture->lost = true;
    report("a captured stream waits for an event that was recorded outside the capture");
    return capture_isolation;
  }
  if (stream.capture && stream.capture != event.capture) return capture_merge;
  if (!stream.capture) {
    if (&stream == &default_stream()) return capture_implicit;
    stream.capture = event.capture;  // the stream joins the capture
    stream.frontier.clear();
  }
  merge(stream.frontier, event.frontier);
  return success;
}

static int begin_capture(StreamHandle handle, int mode) {
  Lock lock(mutex);
  CUDASIM_TRY(usable());
  Stream* stream = stream_of(handle);
  if (!stream || mode < 0 || mode > 2) return invalid_value;
  if (stream == &default_stream()) return capture_unsupported;
  if (capturing(*stream)) return invalid_value;
  stream->capture = std::make_shared<Capture>();
  stream->capture->origin = stream;
  stream->capture->mode = static_cast<CaptureMode>(mode);
  stream->frontier.clear();
  return success;
}

CUDASIM_EXPORT int cuStreamBeginCapture_v2(StreamHandle handle, int mode) {
  CUDASIM_TRY(begin_capture(handle, mode));
  std::this_thread::sleep_for(std::chrono::milliseconds(settings.capture_pause));
  return success;
}

CUDASIM_EXPORT int cuStreamEndCapture(StreamHandle handle, GraphHandle** to) {
  Lock lock(mutex);
  *to = nullptr;
  Stream* stream = stream_of(handle);
  if (!stream || !capturing(*stream)) return invalid_value;
  std::shared_ptr<Capture> capture = stream->capture;
  if (capture->origin != stream) return capture_unmatched;
  if (capture->mode == CaptureMode::thread_local_ && capture->thread != std::this_thread::get_id())
    return capture_wrong_thread;
  std::vector<size_t> ends = stream->frontier;
  for (Stream* other : all_streams())
    if (other->capture == capture) other->capture.reset(), other->frontier.clear();
  if (capture->lost) return capture_invalidated;
  if (!joined(*capture->graph, ends)) {
    report("a stream that joined the capture has work that its first stream does not wait for");
    return capture_unjoined;
  }
  *to = *graphs.insert(new GraphHandle{capture->graph}).first;
  return success;
}

CUDASIM_EXPORT int cuStreamIsCapturing(StreamHandle handle, int* status) {
  Lock lock(mutex);
  Stream* stream = stream_of(handle);
  if (!stream) return invalid_handle;
  *status = !capturing(*stream) ? 0 : stream->capture->lost ? 2 : 1;
  return success;
}

CUDASIM_EXPORT int cuThreadExchangeStreamCaptureMode(int* mode) {
  thread_local int current = 0;
  std::swap(*mode, current);
  return success;
}

CUDASIM_EXPORT int cuGraphInstantiateWithFlags(GraphHandle** executable, GraphHandle* graph,
                                               unsigned long long) {
  Lock lock(mutex);
  CUDASIM_TRY(usable());
  if (!valid(graph)) return invalid_value;
  const size_t bytes = node_bytes * graph->graph->nodes.size();
  if (!reserve(bytes)) return out_of_memory;
  *executable = *graphs.insert(new GraphHandle{graph->graph, bytes}).first;
  return success;
}

CUDASIM_EXPORT int cuGraphExecUpdate_v2(GraphHandle* executable, GraphHandle* graph, void* result) {
  Lock lock(mutex);
  if (!valid(executable) || !valid(graph)) return invalid_value;
  auto& from = executable->graph->nodes;
  auto& to = graph->graph->nodes;
  bool same =
      from.size() == to.size() && std::equal(from.begin(), from.end(), to.begin(),
                                             [](auto& a, auto& b) { return a.after == b.after; });
  // The result struct begins with an enum: 0 success, 1 error, 2 topology changed.
  if (result) *static_cast<int*>(result) = same ? 0 : 2;
  if (!same) return graph_update_failure;
  executable->graph = graph->graph;
  return success;
}

CUDASIM_EXPORT int cuGraphUpload(GraphHandle* executable, StreamHandle) {
  Lock lock(mutex);
  return valid(executable) ? success : invalid_value;
}

CUDASIM_EXPORT int cuGraphLaunch(GraphHandle* executable, StreamHandle handle) {
  Lock lock(mutex);
  CUDASIM_TRY(usable());
  Stream* stream = stream_of(handle);
  if (!stream || !valid(executable)) return invalid_value;
  return submit(*stream, [graph = executable->graph] {
    if (!poisoned()) replay(*graph);
  });
}

static int destroy(GraphHandle* handle) {
  Lock lock(mutex);
  if (!graphs.erase(handle)) return invalid_value;
  unreserve(handle->bytes);
  delete handle;
  return success;
}
CUDASIM_EXPORT int cuGraphExecDestroy(GraphHandle* executable) { return destroy(executable); }
CUDASIM_EXPORT int cuGraphDestroy(GraphHandle* graph) { return destroy(graph); }

CUDASIM_EXPORT int cuGraphGetNodes(GraphHandle* graph, void** nodes, size_t* count) {
  Lock lock(mutex);
  if (!valid(graph)) return invalid_value;
  size_t room = nodes ? *count : 0;
  *count = graph->graph->nodes.size();
  for (size_t i = 0; i < std::min(room, *count); i++) nodes[i] = &graph->graph->nodes[i];
  return success;
}

}  // namespace cudasim
