// A step that is queued on a device again and again as one graph: its kernels start back to back, without a launch
// each.
//
// A captured step is a list of kernels with their arguments, as numbers and addresses. What changes from step to step
// must lie in device memory that the caller writes before (token ids, lengths); where anything else changes, the step
// is captured anew.
#pragma once

#include <functional>
#include <memory>

#include "core/device.h"
#include "core/memory_pool.h"

namespace lathe::kernels {

class Graph;

class DeviceGraph {
 public:
  // What the step allocates comes from `memory`, so that nobody else uses it while the graph may be replayed; without
  // one, from a pool of its own. Graphs that share a pool overwrite what the others left there.
  explicit DeviceGraph(Device device, std::shared_ptr<MemoryPool> memory = {});
  ~DeviceGraph();
  DeviceGraph(const DeviceGraph&) = delete;
  DeviceGraph& operator=(const DeviceGraph&) = delete;

  // Captures what `step` queues on the device, and queues that; where the step has the same kernels as the last one,
  // the executable graph is updated in place. The step must not wait for the device (Error), as copies from and to
  // memory of the host do that is not pinned, and nobody else may queue work there meanwhile. What it throws passes
  // through, and then nothing of it runs. On the cpu the step simply runs.
  void run(const std::function<void()>& step);
  // Queues the last step once more: the same numbers in the same memory.
  void replay();

 private:
  Device device_;
  std::shared_ptr<MemoryPool> memory_;
  std::unique_ptr<Graph> graph_;  // none on the cpu
};

}  // namespace lathe::kernels
