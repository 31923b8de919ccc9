#include "kernels/simt/runtime.h"

#include <cstring>
#include <deque>
#include <functional>
#include <mutex>
#include <string>

#include "kernels/simt/device_memory.h"
#include "kernels/simt/options.h"

namespace lathe::simt {

// A place in a stream's queue: everything before it has run once `completed` of its stream reaches `position`.
struct EventState {
  StreamState* stream = nullptr;
  uint64_t position = 0;
};

struct StreamState {
  std::deque<std::function<cudaError_t()>> held;
  uint64_t queued = 0, completed = 0;
  bool running = false;  // guards against streams that wait for each other
};

namespace {

// One lock for the emulated device: its work never runs at the same time anyway.
std::recursive_mutex device_mutex;
using Lock = std::lock_guard<std::recursive_mutex>;

cudaError_t last_error = cudaSuccess;
std::string failure_text = "no kernel has failed";
int64_t launches = 0;
int64_t until_failure[3] = {};  // by Call; 0 is off

std::vector<StreamState*>& streams() {
  static auto* const all = new std::vector<StreamState*>{new StreamState};
  return *all;
}
StreamState& state_of(cudaStream_t stream) { return stream == nullptr ? *streams().front() : *stream; }

cudaError_t remember(cudaError_t error) {
  if (error != cudaSuccess) last_error = error;
  return error;
}

bool fails_now(Call call) {
  int64_t& left = until_failure[static_cast<int>(call)];
  return left > 0 && --left == 0;
}

void hold(cudaStream_t stream, std::function<cudaError_t()> work) {
  StreamState& state = state_of(stream);
  state.held.push_back(std::move(work));
  ++state.queued;
}

cudaError_t run_until(StreamState& state, uint64_t position) {
  if (state.running) return cudaErrorInvalidValue;
  state.running = true;
  cudaError_t result = cudaSuccess;
  while (state.completed < position) {
    const std::function<cudaError_t()> work = std::move(state.held.front());
    state.held.pop_front();
    ++state.completed;
    if (const cudaError_t error = work(); error != cudaSuccess) result = error;
  }
  state.running = false;
  return result;
}

}  // namespace

void fail_nth(Call call, int64_t n) {
  const Lock lock(device_mutex);
  until_failure[static_cast<int>(call)] = n;
}

int64_t launches_run() {
  const Lock lock(device_mutex);
  return launches;
}

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess: return "no error";
    case cudaErrorInvalidValue: return "invalid argument";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorNoDevice: return "no such simt device";
    case cudaErrorInvalidConfiguration:
    case cudaErrorLaunchFailure: return failure_text.c_str();
  }
  return "unknown error";
}

cudaError_t cudaGetLastError() {
  const Lock lock(device_mutex);
  return std::exchange(last_error, cudaSuccess);
}

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) { return device == 0 ? cudaSuccess : remember(cudaErrorNoDevice); }

cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total_bytes) {
  const Lock lock(device_mutex);
  *free_bytes = free_device_bytes();
  *total_bytes = device_bytes;
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** pointer, size_t bytes) {
  const Lock lock(device_mutex);
  *pointer = fails_now(Call::allocation) ? nullptr : take_device_memory(bytes);
  return *pointer != nullptr || bytes == 0 ? cudaSuccess : remember(cudaErrorMemoryAllocation);
}

cudaError_t cudaFree(void* pointer) {
  const Lock lock(device_mutex);
  if (pointer == nullptr) return cudaSuccess;
  const cudaError_t error = cudaDeviceSynchronize();  // as CUDA does
  if (!give_device_memory(pointer)) return remember(cudaErrorInvalidValue);
  return error;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  const Lock lock(device_mutex);
  if (fails_now(Call::copy)) return remember(cudaErrorInvalidValue);
  const bool to_device = is_device_memory(to, bytes), from_device = is_device_memory(from, bytes);
  const bool stated = kind == cudaMemcpyDefault || (to_device == (kind != cudaMemcpyDeviceToHost) &&
                                                    from_device == (kind != cudaMemcpyHostToDevice));
  if (!stated && bytes > 0) return remember(cudaErrorInvalidValue);
  if (!to_device && bytes > 0) std::memset(to, 0xff, bytes);  // until somebody waits
  hold(stream, [=] {
    const HostAccess access;
    if (bytes > 0) std::memmove(to, from, bytes);
    return cudaSuccess;
  });
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* pointer, int value, size_t bytes, cudaStream_t stream) {
  const Lock lock(device_mutex);
  if (bytes > 0 && !is_device_memory(pointer, bytes)) return remember(cudaErrorInvalidValue);
  hold(stream, [=] {
    const HostAccess access;
    if (bytes > 0) std::memset(pointer, value, bytes);
    return cudaSuccess;
  });
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  const Lock lock(device_mutex);
  *stream = new StreamState;
  streams().push_back(*stream);
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  const Lock lock(device_mutex);
  const cudaError_t error = cudaStreamSynchronize(stream);
  std::erase(streams(), stream);
  delete stream;
  return error;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  const Lock lock(device_mutex);
  StreamState& state = state_of(stream);
  return remember(run_until(state, state.queued));
}

cudaError_t cudaDeviceSynchronize() {
  const Lock lock(device_mutex);
  cudaError_t result = cudaSuccess;
  for (StreamState* stream : streams())
    if (const cudaError_t error = run_until(*stream, stream->queued); error != cudaSuccess) result = error;
  return remember(result);
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
  const Lock lock(device_mutex);
  *event = {&state_of(stream), state_of(stream).queued};
  return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  const Lock lock(device_mutex);
  return event->stream == nullptr ? cudaSuccess : remember(run_until(*event->stream, event->position));
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  const Lock lock(device_mutex);
  if (event->stream == nullptr || event->stream == &state_of(stream)) return cudaSuccess;
  hold(stream, [place = *event] { return run_until(*place.stream, place.position); });
  return cudaSuccess;
}

cudaError_t launch_kernel(KernelLaunch launch, cudaStream_t stream) {
  const Lock lock(device_mutex);
  const auto refuse = [&](const std::string& why) {
    failure_text = why;
    launch.destroy(launch.closure);
    return remember(cudaErrorInvalidConfiguration);
  };
  if (const std::string beyond = launch_limits(launch); !beyond.empty()) return refuse(beyond);
  if (fails_now(Call::launch)) return refuse(std::string("kernel ") + launch.name + ": injected launch failure");
  hold(stream, [launch] {
    const HostAccess access;
    const std::string faults = run_grid(launch);
    launch.destroy(launch.closure);
    ++launches;
    if (faults.empty()) return cudaSuccess;
    failure_text = faults;
    return cudaErrorLaunchFailure;
  });
  return cudaSuccess;
}

}  // namespace lathe::simt
