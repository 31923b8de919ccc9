// On a machine with cards: a thread for each of them (at most four), skipped where there is none.
#include <cuda_runtime.h>

#include <thread>

#include "core/collectives/nccl.h"
#include "kernels/cuda/runtime.h"
#include "tests/support/communicator_checks.h"

namespace lathe::testing {
namespace {

int cards() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess ? std::min(count, 4) : 0;
}

// Tensors of a card, ordered by its default stream.
DeviceTensors tensors_on(Device device) {
  return {.device = device,
          .put =
              [device](const Tensor& on_cpu) {
                const Tensor tensor = Tensor::empty(on_cpu.shape(), on_cpu.dtype(), device);
                kernels::copy_bytes(device, tensor.raw(), {}, on_cpu.raw(), on_cpu.nbytes());
                return tensor;
              },
          .get =
              [device](const Tensor& on_device) {
                cudaDeviceSynchronize();
                const Tensor tensor = Tensor::empty(on_device.shape(), on_device.dtype());
                kernels::copy_bytes({}, tensor.raw(), device, on_device.raw(), on_device.nbytes());
                return tensor;
              }};
}

TEST(NcclCommunicator, SumsAndMovesBetweenCards) {
  if (cards() == 0) GTEST_SKIP() << "this machine has no CUDA device";
  const NcclGroupId id = make_nccl_group_id();
  std::vector<std::thread> ranks;
  for (int rank = 0; rank < cards(); ++rank)
    ranks.emplace_back([&, rank] {
      const Device device{DeviceKind::cuda, rank};
      cudaSetDevice(rank);
      const auto group = nccl_communicator(id, rank, cards(), device, nullptr);
      const DeviceTensors tensors = tensors_on(device);
      // With more than two ranks NCCL's order of addition is its own; integers do not care.
      if (cards() <= 2) check_sums<float>(*group, 1000, tensors);
      check_sums<int64_t>(*group, 65, tensors);
      check_moves<float>(*group, 1000, tensors);
      check_moves<uint8_t>(*group, 33, tensors);
      check_refusals(*group, tensors);
      group->barrier();
    });
  for (std::thread& rank : ranks) rank.join();
}

}  // namespace
}  // namespace lathe::testing
