#include "kernels/cuda/graph.h"

#include <utility>

#include "kernels/cuda/device_runtime.h"

namespace lathe::kernels {

DeviceGraph::DeviceGraph(Device device, std::shared_ptr<MemoryPool> memory)
    : device_(device), memory_(std::move(memory)) {
  if (device_.kind == DeviceKind::cpu) return;
  if (memory_ == nullptr) memory_ = std::make_shared<MemoryPool>(device_);
  graph_ = device_runtime(device_).make_graph(device_.index);
}

DeviceGraph::~DeviceGraph() = default;

void DeviceGraph::run(const std::function<void()>& step) {
  if (graph_ == nullptr) return step();
  const MemoryPool::Scope scope(*memory_);
  graph_->begin_capture();
  try {
    step();
  } catch (...) {
    graph_->abandon_capture();
    throw;
  }
  graph_->end_capture_and_launch();
}

void DeviceGraph::replay() {
  if (graph_ != nullptr) graph_->launch();
}

}  // namespace lathe::kernels
