#include "kernels/cuda/graph.h"

#include <utility>

#include "kernels/cuda/on_device.h"

namespace lathe::kernels {

DeviceGraph::DeviceGraph(Device device, std::shared_ptr<MemoryPool> memory)
    : device_(device), memory_(std::move(memory)) {
  if (device_.kind == DeviceKind::cpu) return;
  if (memory_ == nullptr) memory_ = std::make_shared<MemoryPool>(device_);
  graph_ = LATHE_ON_DEVICE(device_, make_graph(device_.index));
}

DeviceGraph::~DeviceGraph() {
  if (graph_ != nullptr) LATHE_ON_DEVICE(device_, destroy_graph(graph_));
}

void DeviceGraph::run(const std::function<void()>& step) {
  if (graph_ == nullptr) return step();
  const MemoryPool::Scope scope(*memory_);
  LATHE_ON_DEVICE(device_, begin_capture(graph_));
  try {
    step();
  } catch (...) {
    LATHE_ON_DEVICE(device_, abandon_capture(graph_));
    throw;
  }
  LATHE_ON_DEVICE(device_, end_capture_and_launch(graph_));
}

void DeviceGraph::replay() {
  if (graph_ != nullptr) LATHE_ON_DEVICE(device_, launch_graph(graph_));
}

}  // namespace lathe::kernels
