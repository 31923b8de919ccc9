// Streams and graphs as the stand-in for the CUDA runtime keeps them: queues of work that nobody has waited for yet.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "kernels/simt/options.h"
#include "kernels/simt/runtime.h"

namespace lathe::simt {

enum class WorkKind { kernel, copy, fill, wait, host };
struct Work {
  WorkKind kind;
  std::function<cudaError_t()> run;  // may be called again: it is a graph's node
};

struct GraphState {
  int device = 0;
  std::vector<Work> nodes;
};

// Shared with whoever waits for it, as its owner may destroy it before they do.
struct StreamState : std::enable_shared_from_this<StreamState> {
  explicit StreamState(int of) : device(of) {}
  int device;
  std::deque<Work> held;
  uint64_t queued = 0, completed = 0;
  bool running = false;  // guards against streams that wait for each other
  std::unique_ptr<GraphState> capture;
  bool capture_broken = false;
};

// One lock for the emulated devices: their work never runs at the same time anyway.
using Lock = std::lock_guard<std::recursive_mutex>;
std::recursive_mutex& device_mutex();

int current_device();
// The stream, or the current device's default one.
StreamState& state_of(cudaStream_t stream);
cudaError_t remember(cudaError_t error);  // for cudaGetLastError
void set_failure_text(std::string text);  // what cudaGetErrorString says of a failed launch
bool fails_now(Call call);                // counts this call
void count_launch();

// Queues, or captures.
cudaError_t hold(StreamState& stream, WorkKind kind, std::function<cudaError_t()> work);
cudaError_t synchronize_device(int device);
// What a capturing stream does not allow; ends the capture.
cudaError_t break_capture(StreamState& stream);

}  // namespace lathe::simt
