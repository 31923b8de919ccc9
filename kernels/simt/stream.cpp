#include "kernels/simt/stream.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "kernels/simt/device_memory.h"
#include "kernels/simt/options.h"

namespace lathe::simt {

// A place in a stream's queue: everything before it has run once `completed` of its stream reaches `position`.
struct EventState {
  std::shared_ptr<StreamState> stream;
  uint64_t position = 0;
};

namespace {

// The default streams of the devices come first.
std::vector<std::shared_ptr<StreamState>>& streams() {
  static auto* const all = [] {
    auto* const made = new std::vector<std::shared_ptr<StreamState>>;
    for (int i = 0; i < device_count; ++i) made->push_back(std::make_shared<StreamState>(i));
    return made;
  }();
  return *all;
}

cudaError_t run_until(StreamState& state, uint64_t position) {
  if (state.completed >= position) return cudaSuccess;
  if (state.running) return cudaErrorInvalidValue;
  state.running = true;
  cudaError_t result = cudaSuccess;
  // The device's memory opens once for kernels and copies that follow one another: each time takes as long as a small
  // kernel.
  std::optional<HostAccess> access;
  while (state.completed < position) {
    const Work work = std::move(state.held.front());
    state.held.pop_front();
    ++state.completed;
    if (work.kind == WorkKind::host || work.kind == WorkKind::wait)
      access.reset();
    else if (!access)
      access.emplace(state.device);
    if (const cudaError_t error = work.run(); error != cudaSuccess) result = error;
  }
  state.running = false;
  return result;
}

}  // namespace

std::recursive_mutex& device_mutex() {
  static auto* const mutex = new std::recursive_mutex;
  return *mutex;
}

StreamState& state_of(cudaStream_t stream) {
  return stream == nullptr ? *streams()[static_cast<size_t>(current_device())] : *stream;
}

cudaError_t hold(StreamState& stream, WorkKind kind, std::function<cudaError_t()> work) {
  if (stream.capture) {
    stream.capture->nodes.push_back({kind, std::move(work)});
    return cudaSuccess;
  }
  stream.held.push_back({kind, std::move(work)});
  ++stream.queued;
  return cudaSuccess;
}

cudaError_t break_capture(StreamState& stream) {
  stream.capture_broken = true;
  return remember(cudaErrorStreamCaptureUnsupported);
}

cudaError_t synchronize_device(int device) {
  cudaError_t result = cudaSuccess;
  for (const auto& stream : streams())
    if (stream->device == device)
      if (const cudaError_t error = run_until(*stream, stream->queued); error != cudaSuccess) result = error;
  return remember(result);
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  const Lock lock(device_mutex());
  streams().push_back(std::make_shared<StreamState>(current_device()));
  *stream = streams().back().get();
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  const Lock lock(device_mutex());
  const cudaError_t error = cudaStreamSynchronize(stream);
  std::erase_if(streams(), [stream](const auto& one) { return one.get() == stream; });
  return error;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  const Lock lock(device_mutex());
  StreamState& state = state_of(stream);
  if (state.capture) return break_capture(state);
  return remember(run_until(state, state.queued));
}

bool work_is_queued() {
  const Lock lock(device_mutex());
  return std::any_of(streams().begin(), streams().end(),
                     [](const auto& stream) { return stream->capture || !stream->held.empty(); });
}

cudaError_t cudaDeviceSynchronize() {
  const Lock lock(device_mutex());
  return synchronize_device(current_device());
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new EventState;
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const Lock lock(device_mutex());
  StreamState& state = state_of(stream);
  if (state.capture) return break_capture(state);
  *event = {state.shared_from_this(), state.queued};
  return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  const Lock lock(device_mutex());
  return event->stream == nullptr ? cudaSuccess : remember(run_until(*event->stream, event->position));
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  const Lock lock(device_mutex());
  StreamState& state = state_of(stream);
  if (state.capture) return break_capture(state);
  if (event->stream == nullptr || event->stream.get() == &state) return cudaSuccess;
  return hold(state, WorkKind::wait, [place = *event] { return run_until(*place.stream, place.position); });
}

cudaError_t launch_kernel(KernelLaunch launch, cudaStream_t stream) {
  const Lock lock(device_mutex());
  StreamState& state = state_of(stream);
  // The closure lives as long as somebody may run it: a queue, a graph.
  const std::shared_ptr<void> closure(launch.closure, launch.destroy);
  const auto refuse = [](std::string why) {
    set_failure_text(std::move(why));
    return remember(cudaErrorInvalidConfiguration);
  };
  if (const std::string beyond = launch_limits(launch); !beyond.empty()) return refuse(beyond);
  if (fails_now(Call::launch)) return refuse(std::string("kernel ") + launch.name + ": injected launch failure");
  if (state.device != current_device()) return remember(cudaErrorInvalidResourceHandle);
  return hold(state, WorkKind::kernel, [launch, closure, device = state.device] {
    const HostAccess access(device);
    const std::string faults = runs_kernels() ? run_grid(launch) : "";
    count_launch();
    if (faults.empty()) return cudaSuccess;
    set_failure_text(faults);
    return cudaErrorLaunchFailure;
  });
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, void (*function)(void*), void* data) {
  const Lock lock(device_mutex());
  StreamState& state = state_of(stream);
  if (fails_now(Call::launch)) return remember(cudaErrorInvalidValue);
  return hold(state, WorkKind::host, [function, data] {
    function(data);
    return cudaSuccess;
  });
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  const Lock lock(device_mutex());
  if (stream == nullptr) return remember(cudaErrorStreamCaptureUnsupported);  // the default stream cannot
  if (fails_now(Call::capture)) return remember(cudaErrorMemoryAllocation);
  if (stream->capture) return remember(cudaErrorInvalidValue);
  stream->capture = std::make_unique<GraphState>();
  stream->capture->device = stream->device;
  stream->capture_broken = false;
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  const Lock lock(device_mutex());
  *graph = nullptr;
  if (!stream->capture) return remember(cudaErrorInvalidValue);
  const std::unique_ptr<GraphState> captured = std::move(stream->capture);
  if (stream->capture_broken) return remember(cudaErrorStreamCaptureInvalidated);
  *graph = new GraphState(*captured);
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
  const Lock lock(device_mutex());
  if (fails_now(Call::capture)) return remember(cudaErrorMemoryAllocation);
  *executable = new GraphState(*graph);
  return cudaSuccess;
}

cudaError_t cudaGraphExecUpdate(cudaGraphExec_t executable, cudaGraph_t graph, cudaGraphExecUpdateResultInfo*) {
  const Lock lock(device_mutex());
  bool same = executable->nodes.size() == graph->nodes.size();
  for (size_t i = 0; same && i < graph->nodes.size(); ++i) same = executable->nodes[i].kind == graph->nodes[i].kind;
  if (!same) return remember(cudaErrorGraphExecUpdateFailure);
  *executable = *graph;
  return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  const Lock lock(device_mutex());
  StreamState& state = state_of(stream);
  if (state.device != executable->device) return remember(cudaErrorInvalidResourceHandle);
  if (fails_now(Call::launch)) {
    set_failure_text("injected launch failure");
    return remember(cudaErrorLaunchFailure);
  }
  for (const Work& node : executable->nodes) hold(state, node.kind, node.run);
  return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  delete executable;
  return cudaSuccess;
}

}  // namespace lathe::simt
