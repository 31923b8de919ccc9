// Clusters of blocks, on simt and on a card: their barrier, shared memory of other blocks, arrivals at their mbarriers,
// copies to several of them at once. On simt each planted fault is found, with its place.
#include "tests/support/cluster_kernels.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/support/hopper.h"
#include "tests/support/warpgroup_operands.h"

namespace lathe::testing {
namespace {

class Clusters : public ::testing::TestWithParam<DeviceKind> {
 protected:
  void SetUp() override {
    if (const std::string why = kernels::why_unavailable(device()); !why.empty()) GTEST_SKIP() << why;
#if !defined(LATHE_TEST_SM90A)
    if (GetParam() == DeviceKind::cuda) GTEST_SKIP() << "only device_tests has nvcc's code of these kernels";
#endif
    kernels::use_device(device());
    if (!run().run_here()) GTEST_SKIP() << "the card is not of sm_90";
  }
  Device device() const { return {GetParam()}; }
  static ClusterKernels run() {
#if defined(LATHE_TEST_SM90A)
    if (GetParam() == DeviceKind::cuda) return cluster_kernels<DeviceKind::cuda>();
#endif
    return cluster_kernels<DeviceKind::simt>();
  }

 private:
  Hopper hopper_;
};

INSTANTIATE_TEST_SUITE_P(, Clusters, ::testing::Values(DeviceKind::simt, DeviceKind::cuda),
                         [](const auto& info) { return info.param == DeviceKind::simt ? "simt" : "cuda"; });

std::vector<float> hand_on(Device device, const ClusterKernels& run, ClusterFault fault, int blocks, int cluster) {
  const Tensor out = Tensor::empty({blocks, 64}, DType::f32, device);
  run.hand_on(fault, static_cast<float*>(out.raw()), blocks, cluster);
  return floats_of(out);
}

TEST_P(Clusters, BlocksReadAndWriteEachOthersSharedMemory) {
  const FiberOrders orders;
  for (const simt::FiberOrder order : orders.all) {
    simt::set_fiber_order(order);
    for (const int cluster : {1, 2, 4, 8}) {
      const int blocks = 2 * cluster;
      const std::vector<float> out = hand_on(device(), run(), ClusterFault::none, blocks, cluster);
      for (int block = 0; block < blocks; ++block) {
        const int from = block / cluster * cluster + (block % cluster + 2 * cluster - 2) % cluster;
        for (int i = 0; i < 64; ++i)
          EXPECT_EQ(out[static_cast<size_t>(64 * block + i)], static_cast<float>(from + 1000 * i) + 0.5f)
              << "block " << block << " in clusters of " << cluster;
      }
    }
  }
}

std::vector<float> product(Device device, const ClusterKernels& run, ClusterFault fault, int k) {
  const Tensor left = to_device(device, operand(DType::bf16, int64_t{128} * k, 3)),
               right = to_device(device, operand(DType::bf16, int64_t{64} * k, 4)),
               out = Tensor::empty({128, 64}, DType::f32, device);
  run.multicast_product(fault, static_cast<float*>(out.raw()), left.raw(), right.raw(), k);
  return floats_of(out);
}

TEST_P(Clusters, BothBlocksGetWhatEachOfThemCopiesUnderEveryOrder) {
  const FiberOrders orders;
  for (const int k : {64, 200, 328}) {
    const std::vector<float> expected = by_formula(operand(DType::bf16, int64_t{128} * k, 3),
                                                   operand(DType::bf16, int64_t{64} * k, 4), DType::bf16, 128, 64, k);
    for (const simt::FiberOrder order : orders.all) {
      simt::set_fiber_order(order);
      EXPECT_TRUE(same_bits(product(device(), run(), ClusterFault::none, k), expected)) << k;
    }
  }
}

// ---- faults ----

constexpr Device simt_device{DeviceKind::simt};
const std::string place = "cluster_kernels.cu:";

void expect_report(ClusterFault fault, const std::vector<std::string>& words) {
  const Hopper hopper;
  expect_report_of([&] { hand_on(simt_device, cluster_kernels<DeviceKind::simt>(), fault, 2, 2); }, words);
}
void expect_report_of_multicast(ClusterFault fault, const std::vector<std::string>& words) {
  const Hopper hopper;
  expect_report_of([&] { product(simt_device, cluster_kernels<DeviceKind::simt>(), fault, 320); }, words);
}

TEST(ClusterFaults, NameABlockThatIsNotThereYet) {
  expect_report(ClusterFault::peer_reached_before_it_is_there,
                {"kernel hand_on, block (0,0,0): thread (0,0,0) reaches for another block of its cluster before a "
                 "barrier.cluster has said that it is there, at ",
                 place});
}
TEST(ClusterFaults, NameABlockThatHasExited) {
  if (!simt::checks_shared_memory()) GTEST_SKIP() << "kernels are instrumented by a sanitizer in this build";
  expect_report(ClusterFault::peer_read_after_it_left,
                {"reaches for a block of its cluster that has exited, at ", place});
}
TEST(ClusterFaults, NameWhatAnotherBlockWritesMeanwhile) {
  if (!simt::checks_shared_memory()) GTEST_SKIP() << "kernels are instrumented by a sanitizer in this build";
  expect_report(ClusterFault::peer_writes_without_barrier, {"shared memory that ", place});
  const FiberOrders orders;
  simt::set_fiber_order(simt::FiberOrder::descending);
  expect_report(ClusterFault::peer_writes_without_barrier,
                {"of the cluster's block of another rank ", ", with no barrier between: a race", place});
}
TEST(ClusterFaults, NameAnArrivalAtAnMbarrierThatTheClusterDoesNotKnow) {
  expect_report(ClusterFault::arrival_not_fenced,
                {"arrives from another block at an mbarrier that no fence.mbarrier_init has followed, at ", place});
  expect_report(ClusterFault::mbarrier_the_cluster_does_not_know,
                {"uses an mbarrier that another block initialised, with no barrier.cluster between, at ", place});
}
TEST(ClusterFaults, NameABarrierThatDoesNotHold) {
  expect_report(ClusterFault::arrive_twice, {"arrives at barrier.cluster twice with no wait between, at ", place});
  expect_report(ClusterFault::barrier_left_out,
                {"block (0,0,0): hang: thread (0,0,0) waits for barrier.cluster.wait at ", place,
                 "at which 64 threads of the cluster have arrived"});
}
TEST(ClusterFaults, NameABlockThatIsNotOfTheCluster) {
  expect_report(ClusterFault::rank_outside, {"reaches for a block that its cluster has not, at ", place});
}
TEST(ClusterFaults, NameAStageOfAnotherBlockThatIsStillRead) {
  expect_report_of_multicast(
      ClusterFault::multicast_while_a_peer_reads,
      {"block (0,0,0): thread (0,0,0) copies to shared memory that a wgmma reads which nobody has waited for, at ",
       place});
}
TEST(ClusterFaults, NameAStageReadBeforeTheOtherBlocksHalfHasArrived) {
  if (!simt::checks_shared_memory()) GTEST_SKIP() << "AddressSanitizer stops the program in this build";
  expect_report_of_multicast(
      ClusterFault::half_of_the_bytes_expected,
      {"reads shared memory that a cp.async is still to write: the wait is missing, at ", place});
}
TEST(ClusterFaults, NameACopyToABlockThatHasExited) {  // which it had not when the copy began
  expect_report_of_multicast(
      ClusterFault::multicast_to_who_left,
      {"has a bulk copy under way that reaches for a block of its cluster that has exited, at ", place});
}

TEST(ClusterLimits, ALaunchThatNoCardAllowsIsNamed) {
  expect_report_of([] { hand_on(simt_device, cluster_kernels<DeviceKind::simt>(), ClusterFault::none, 2, 2); },
                   {"clusters want a card of sm_90"});
  const Hopper hopper;
  expect_report_of([] { hand_on(simt_device, cluster_kernels<DeviceKind::simt>(), ClusterFault::none, 3, 2); },
                   {"clusters of 2 blocks along a grid of 3; 1 to 8 make up the grid"});
}

}  // namespace
}  // namespace lathe::testing
