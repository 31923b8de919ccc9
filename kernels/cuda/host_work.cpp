#include "kernels/cuda/host_work.h"

#include <bit>
#include <map>
#include <memory>
#include <mutex>
#include <tuple>
#include <utility>
#include <vector>

#include "kernels/checks/expect.h"
#include "kernels/cuda/device_runtime.h"

namespace lathe::kernels {
namespace {

// Pinned memory by device and size, a power of two. It is kept for ever: the driver takes long to pin it, and waits for
// its devices when it is given back.
struct PinnedBlocks {
  std::mutex mutex;
  std::map<std::tuple<DeviceKind, int, int64_t>, std::vector<void*>> free;
};
PinnedBlocks& pinned_blocks() {
  static auto* const blocks = new PinnedBlocks;
  return *blocks;
}

std::shared_ptr<void> pinned_block(Device device, int64_t bytes) {
  constexpr int64_t least = 4096;
  const int64_t size = bytes <= least ? least : static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(bytes)));
  const std::tuple key{device.kind, device.index, size};
  PinnedBlocks& blocks = pinned_blocks();
  void* block = nullptr;
  {
    const std::lock_guard lock(blocks.mutex);
    if (std::vector<void*>& free = blocks.free[key]; !free.empty()) {
      block = free.back();
      free.pop_back();
    }
  }
  if (block == nullptr) block = device_runtime(device).take_pinned(device.index, size);
  return {block, [key](void* done) {
            const std::lock_guard lock(pinned_blocks().mutex);
            pinned_blocks().free[key].push_back(done);
          }};
}

bool is_cpu(Device device) { return device.kind == DeviceKind::cpu; }

}  // namespace

Tensor host_tensor(const Shape& shape, DType dtype, Device device) {
  if (is_cpu(device)) return Tensor::empty(shape, dtype);
  const int64_t bytes = shape.numel() * size_of(dtype);
  std::shared_ptr<void> block = pinned_block(device, bytes);
  void* const memory = block.get();
  return Tensor::from_storage(Storage::wrap(memory, bytes, {}, std::move(block)), 0, shape, dtype);
}

Tensor queued_to_host(const Tensor& tensor) {
  expect("queued_to_host", "tensor", tensor).contiguous();
  const Device device = tensor.device();
  if (is_cpu(device)) return tensor;
  const Tensor host = host_tensor(tensor.shape(), tensor.dtype(), device);
  device_runtime(device).queue_copy_out(device.index, host.raw(), tensor.raw(), tensor.nbytes());
  return host;
}

Tensor queued_to_device(const Tensor& tensor, Device device) {
  expect("queued_to_device", "tensor", tensor).contiguous();
  if (is_cpu(device)) return tensor;
  const Tensor there = Tensor::empty(tensor.shape(), tensor.dtype(), device);
  device_runtime(device).queue_copy_in(device.index, there.raw(), tensor.raw(), tensor.nbytes());
  return there;
}

void queue_host_work(Device device, std::function<void()> work) {
  if (is_cpu(device)) return work();
  device_runtime(device).queue_host_work(device.index, std::move(work));
}

}  // namespace lathe::kernels
