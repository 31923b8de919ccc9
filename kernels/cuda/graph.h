// A step that is queued on a device again and again as one graph: its kernels start back to back, without a launch each.
//
// Every run captures the step anew, because numbers that change from step to step (a sequence's length, token ids) are kernel
// arguments, and updates the executable graph in place; where the step has other kernels than before it is made anew.
#pragma once

#include <functional>

#include "core/device.h"

namespace lathe::kernels {

struct Graph;

class DeviceGraph {
 public:
  explicit DeviceGraph(Device device);
  ~DeviceGraph();
  DeviceGraph(const DeviceGraph&) = delete;
  DeviceGraph& operator=(const DeviceGraph&) = delete;

  // Queues what `step` queues on the device. The step must not wait for the device nor copy from or to the host (Error), and
  // nobody else may queue work there meanwhile. What it throws passes through, and then nothing of it runs. On the cpu the
  // step simply runs.
  void run(const std::function<void()>& step);
  // Queues the last step once more as it was: the same numbers in the same memory.
  void replay();

 private:
  Device device_;
  Graph* graph_ = nullptr;
};

}  // namespace lathe::kernels
