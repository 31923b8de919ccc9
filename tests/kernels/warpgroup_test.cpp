// mbarriers, bulk tensor copies and wgmma of sm_90a, on simt and on a card: copies land where the hardware's swizzle
// has them, and mma.sync and wgmma multiply from every layout by one formula. On simt each planted fault is found, with
// its place.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/random.h"
#include "core/tensor.h"
#include "kernels/cuda/runtime.h"
#include "kernels/simt/options.h"
#include "kernels/simt/tensor_sum.h"
#include "tests/support/operation_cases.h"
#include "tests/support/warpgroup_kernels.h"
#include "tests/support/warpgroup_operands.h"

namespace lathe::testing {
namespace {

class Warpgroup : public ::testing::TestWithParam<DeviceKind> {
 protected:
  void SetUp() override {
    if (const std::string why = kernels::why_unavailable(device()); !why.empty()) GTEST_SKIP() << why;
#if !defined(LATHE_TEST_SM90A)
    if (GetParam() == DeviceKind::cuda) GTEST_SKIP() << "only device_tests has nvcc's code of these kernels";
#endif
    if (!run().run_here()) GTEST_SKIP() << "the card is not of sm_90";
  }
  Device device() const { return {GetParam()}; }
  static WarpgroupKernels run() {
#if defined(LATHE_TEST_SM90A)
    if (GetParam() == DeviceKind::cuda) return warpgroup_kernels<DeviceKind::cuda>();
#endif
    return warpgroup_kernels<DeviceKind::simt>();
  }
};

INSTANTIATE_TEST_SUITE_P(, Warpgroup, ::testing::Values(DeviceKind::simt, DeviceKind::cuda),
                         [](const auto& info) { return info.param == DeviceKind::simt ? "simt" : "cuda"; });

// ---- the formula ----

TEST(TensorSum, KeepsTwentyFiveBitsBelowTheLargestExponent) {
  EXPECT_EQ(add(1, {0x1p-12f, 0x1p-12f}, {0x1p-12f, 0x1p-12f}), 1 + 0x1p-23f);  // a chain in f32 would stay at 1
  EXPECT_EQ(add(1, {0x1p-13f, 0x1p-13f, 0x1p-13f, 0x1p-13f}, {0x1p-12f, 0x1p-12f, 0x1p-12f, 0x1p-12f}), 1 + 0x1p-23f);
  EXPECT_EQ(add(1, std::vector<float>(16, 0x1p-13f), std::vector<float>(16, 0x1p-13f)), 1);
}
TEST(TensorSum, CutsOffTowardZero) {
  EXPECT_EQ(add(1, {1}, {0x1.8p-24f}), 1);
  EXPECT_EQ(add(-1, {1}, {-0x1.8p-24f}), -1);
  EXPECT_EQ(add(-1, {1}, {0x1p-25f}), -0x1.fffffep-1f);
}
TEST(TensorSum, ProductsAreNotNormalised) {
  EXPECT_EQ(add(0x1p-25f, {1.5f, -1.5f}, {1.5f, 1.5f}), 0x1p-25f);  // 2.25 counts as exponent 0
  EXPECT_EQ(add(0x1p-26f, {1.5f, -1.5f}, {1.5f, 1.5f}), 0);
}
TEST(TensorSum, SubnormalsOfF16KeepTheLeastExponent) {
  EXPECT_EQ(add(0, {0x1p-24f}, {1}, -14), 0x1p-24f);
  EXPECT_EQ(add(0x1p-40f, {0x1p-24f, -0x1p-24f}, {1, 1}, -14), 0);          // 26 below 2^-14
  EXPECT_EQ(add(0x1p-40f, {0x1p-24f, -0x1p-24f}, {1, 1}, -126), 0x1p-40f);  // as bf16's, 16 below 2^-24
}
TEST(TensorSum, ReachesTheEndsOfF32) {
  EXPECT_EQ(add(0x1p-149f, {0x1p-75f}, {0x1p-75f}), 0x1p-149f);
  EXPECT_EQ(add(0x1p127f, {0x1p64f}, {0x1p63f}), std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isnan(add(0, {std::numeric_limits<float>::infinity()}, {0})));
  EXPECT_EQ(add(-0.0f, {0}, {1}), 0);
}
TEST(TensorSum, DoesNotDependOnTheOrderOfItsProducts) {
  RandomStream random(7, RandomPurpose::test);
  std::vector<std::pair<float, float>> pairs(16);
  for (auto& [a, b] : pairs) {
    a = std::ldexp(static_cast<float>(random.below(511)) - 255, static_cast<int>(random.below(40)) - 20);
    b = std::ldexp(static_cast<float>(random.below(511)) - 255, static_cast<int>(random.below(40)) - 20);
  }
  std::vector<float> sums;
  for (int turn = 0; turn < 16; ++turn) {
    std::rotate(pairs.begin(), pairs.begin() + 1, pairs.end());
    std::vector<float> a, b;
    for (const auto& pair : pairs) a.push_back(pair.first), b.push_back(pair.second);
    sums.push_back(add(3, a, b));
  }
  EXPECT_EQ(std::count(sums.begin(), sums.end(), sums[0]), 16);
}

// ---- copies and products ----

TEST_P(Warpgroup, ABulkCopyTakesTheBoxAndZerosPastTheEnd) {
  constexpr int rows = 21, columns = 104;
  std::vector<std::byte> matrix(size_t{2} * rows * columns);
  for (int i = 0; i < rows * columns; ++i) {
    const auto bits = static_cast<uint16_t>(i + 1);
    std::memcpy(matrix.data() + 2 * i, &bits, 2);
  }
  const Tensor from = to_device(device(), matrix);
  for (const int row : {0, 8, 16}) {
    for (const int column : {0, 8, 64}) {
      const Tensor out = Tensor::empty({size_t{2} * 16 * 64}, DType::u8, device());
      run().tensor_copy(out.raw(), from.raw(), rows, columns, row, column, 16);
      std::vector<uint16_t> box(16 * 64);
      kernels::copy_bytes(Device{}, box.data(), device(), out.raw(), out.nbytes());
      for (int i = 0; i < 16; ++i)
        for (int j = 0; j < 64; ++j) {
          const bool inside = row + i < rows && column + j < columns;
          ASSERT_EQ(box[static_cast<size_t>(i * 64 + j)], inside ? (row + i) * columns + column + j + 1 : 0)
              << row << ", " << column << ": " << i << ", " << j;
        }
    }
  }
}

// Three matrices, of which a box holds nothing of the next.
struct Several {
  static constexpr int count = 3, rows = 21, columns = 104, box_rows = 16;
  Device device;
  Tensor matrices, map_room;

  explicit Several(Device on) : device(on) {
    std::vector<std::byte> elements(size_t{2} * count * rows * columns);
    for (int i = 0; i < count * rows * columns; ++i) {
      const auto bits = static_cast<uint16_t>(i + 1);
      std::memcpy(elements.data() + 2 * i, &bits, 2);
    }
    matrices = to_device(device, elements);
    map_room = to_device(device, std::vector<std::byte>(256));
  }
  std::vector<uint16_t> box(const WarpgroupKernels& run, int matrix, int row, int column, bool acquires = true) const {
    const Tensor out = Tensor::empty({size_t{2} * box_rows * 64}, DType::u8, device);
    run.tensor_copy_of(out.raw(), {.matrices = matrices.raw(),
                                   .count = count,
                                   .rows = rows,
                                   .columns = columns,
                                   .matrix = matrix,
                                   .row = row,
                                   .column = column,
                                   .box_rows = box_rows,
                                   .map_room = map_room.raw(),
                                   .acquires = acquires});
    std::vector<uint16_t> found(box_rows * 64);
    kernels::copy_bytes(Device{}, found.data(), device, out.raw(), out.nbytes());
    return found;
  }
};

TEST_P(Warpgroup, ABulkCopyByAMapInDeviceMemoryTakesABoxOfOneOfSeveralMatrices) {
  const Several several(device());
  for (const int matrix : {0, 2}) {
    for (const int row : {0, 16}) {
      constexpr int column = 64;
      const std::vector<uint16_t> box = several.box(run(), matrix, row, column);
      for (int i = 0; i < 16; ++i)
        for (int j = 0; j < 64; ++j) {
          const bool inside = row + i < several.rows && column + j < several.columns;
          const int element = (matrix * several.rows + row + i) * several.columns + column + j;
          ASSERT_EQ(box[static_cast<size_t>(i * 64 + j)], inside ? element + 1 : 0)
              << matrix << ", " << row << ": " << i << ", " << j;
        }
    }
  }
}

TEST_P(Warpgroup, AMatrixThatBulkCopiesCannotServeIsNamed) {
  const Tensor from = to_device(device(), std::vector<std::byte>(4096));
  EXPECT_THROW(run().tensor_copy(from.raw(), from.raw(), 8, 63, 0, 0, 8), Error);
  EXPECT_THROW(run().tensor_copy(from.raw(), static_cast<std::byte*>(from.raw()) + 2, 8, 64, 0, 0, 8), Error);
}

TEST_P(Warpgroup, EveryWayIntoWgmmaGivesTheBitsOfTheFormula) {
  for (const DType dtype : {DType::bf16, DType::f16}) {
    const std::vector<std::byte> a = operand(dtype, 64 * 64, 1);
    const Tensor left = to_device(device(), a);
    for (const int n : {8, 16, 32, 64, 96, 128, 256}) {
      const std::vector<std::byte> b = operand(dtype, int64_t{n} * 64, 2);
      const std::vector<float> expected = by_formula(a, b, dtype, 64, n, 64);
      const Tensor right = to_device(device(), b);
      for (const WgmmaA where : {WgmmaA::shared_k, WgmmaA::shared_mn, WgmmaA::registers})
        for (const bool along_n : {false, true}) {
          const Tensor out = Tensor::empty({64, n}, DType::f32, device());
          run().wgmma({.dtype = dtype, .n = n, .a = where, .b_along_n = along_n}, static_cast<float*>(out.raw()),
                      left.raw(), right.raw());
          EXPECT_TRUE(same_bits(floats_of(out), expected))
              << name_of(dtype) << ", n " << n << ", a " << static_cast<int>(where) << ", b along n " << along_n;
        }
    }
  }
}

TEST_P(Warpgroup, MmaSyncGivesTheBitsOfTheFormula) {
  for (const DType dtype : {DType::bf16, DType::f16}) {
    const std::vector<std::byte> a = operand(dtype, 64 * 64, 1), b = operand(dtype, 8 * 64, 2);
    const Tensor left = to_device(device(), a), right = to_device(device(), b),
                 out = Tensor::empty({64, 8}, DType::f32, device());
    run().mma(dtype, static_cast<float*>(out.raw()), left.raw(), right.raw());
    EXPECT_TRUE(same_bits(floats_of(out), by_formula(a, b, dtype, 64, 8, 64))) << name_of(dtype);
  }
}

std::vector<float> product(Device device, const WarpgroupKernels& run, WarpgroupFault fault,
                           const std::vector<std::byte>& a, const std::vector<std::byte>& b, int k) {
  const Tensor left = to_device(device, a), right = to_device(device, b),
               room = to_device(device, std::vector<std::byte>(256));
  const Tensor out = Tensor::empty({64, 64}, DType::f32, device);
  run.product(fault, static_cast<float*>(out.raw()), left.raw(), right.raw(), k, room.raw());
  return floats_of(out);
}

TEST_P(Warpgroup, AProducerAndAConsumerAgreeUnderEveryOrder) {
  const FiberOrders orders;
  for (const int k : {64, 200, 328}) {
    const std::vector<std::byte> a = operand(DType::bf16, 64 * k, 3), b = operand(DType::bf16, 64 * k, 4);
    const std::vector<float> expected = by_formula(a, b, DType::bf16, 64, 64, k);
    for (const simt::FiberOrder order : orders.all) {
      simt::set_fiber_order(order);
      EXPECT_TRUE(same_bits(product(device(), run(), WarpgroupFault::none, a, b, k), expected)) << k;
    }
  }
}

// ---- faults ----

constexpr Device simt_device{DeviceKind::simt};

void expect_report(WarpgroupFault fault, const std::vector<std::string>& words, int k = 320) {
  const std::vector<std::byte> a = operand(DType::bf16, int64_t{64} * k, 3);
  expect_report_of([&] { product(simt_device, warpgroup_kernels<DeviceKind::simt>(), fault, a, a, k); }, words);
}

const std::string place = "warpgroup_kernels.cu:";

TEST(WarpgroupFaults, NameAnMbarrierUsedTooEarly) {
  expect_report(WarpgroupFault::mbarrier_without_block_barrier,
                {"uses an mbarrier that another thread initialised, with no barrier between, at ", place});
  expect_report(WarpgroupFault::mbarrier_not_fenced,
                {"thread (0,0,0) copies onto an mbarrier that no fence.mbarrier_init has followed, at ", place});
  expect_report(WarpgroupFault::mbarrier_never_initialised,
                {"uses an mbarrier that nobody has initialised, at ", place});
}
TEST(WarpgroupFaults, NameAnArrivalTooMany) {
  expect_report(WarpgroupFault::too_many_arrivals,
                {"arrives at an mbarrier more often than its count says, at ", place});
}
TEST(WarpgroupFaults, NameWhatAHangWaitsFor) {
  expect_report(
      WarpgroupFault::too_many_bytes_expected,
      {"hang: thread (128,0,0) waits for mbarrier.try_wait at ", place, ", the mbarrier at byte 32768 of dynamic ",
       "for parity 0: it is in phase 0 with 0 of 1 arrivals and 8192 bytes to come"});
}
TEST(WarpgroupFaults, NameAWrongParity) {
  if (!simt::checks_shared_memory()) GTEST_SKIP() << "AddressSanitizer stops the program in this build";
  expect_report(WarpgroupFault::wrong_parity, {"reads shared memory that a cp.async is still to write"});
}
TEST(WarpgroupFaults, NameAReadOfAStageUnderWay) {
  if (!simt::checks_shared_memory()) GTEST_SKIP() << "AddressSanitizer stops the program in this build";
  expect_report(WarpgroupFault::stage_read_before_it_arrived, {"reads shared memory that ", place});
  expect_report(WarpgroupFault::stage_waited_for_after_its_wgmma,
                {"by wgmma reads shared memory that a cp.async is still to write", place});
}
TEST(WarpgroupFaults, NameAStageReleasedTooEarly) {
  expect_report(WarpgroupFault::stage_released_before_the_wait,
                {"thread (0,0,0) copies to shared memory that a wgmma reads which nobody has waited for, at ", place});
}
TEST(WarpgroupFaults, NameAMissingProxyFence) {
  if (!simt::checks_shared_memory()) GTEST_SKIP() << "kernels are instrumented by a sanitizer in this build";
  const std::vector<std::byte> a = operand(DType::bf16, 64 * 64, 1);
  const Tensor operands = to_device(simt_device, a), out = Tensor::empty({64, 64}, DType::f32, simt_device);
  expect_report_of(
      [&] {
        warpgroup_kernels<DeviceKind::simt>().wgmma({.n = 64, .proxy_fence = false}, static_cast<float*>(out.raw()),
                                                    operands.raw(), operands.raw());
        kernels::synchronize(simt_device);
      },
      {"stored with no fence.proxy.async after it, at ", place});
}
TEST(WarpgroupFaults, NameARegisterTouchedInFlight) {
  if (simt::checks_shared_memory())
    expect_report(WarpgroupFault::accumulator_read_in_flight,
                  {"touches a register of a wgmma that it has not waited for, at "});
  expect_report(WarpgroupFault::a_registers_written_in_flight, {"waited for"});
}
TEST(WarpgroupFaults, NameAMisalignedSwizzle) {
  expect_report(WarpgroupFault::misaligned_swizzle,
                {"copies a box in 128-byte swizzle to an address that is not a multiple of 1024, at ", place});
  expect_report(WarpgroupFault::misaligned_operand,
                {"gives wgmma an operand in 128-byte swizzle that begins at no multiple of 1024, at ", place});
}
TEST(WarpgroupFaults, NameATensorMapInGlobalMemory) {
  expect_report(WarpgroupFault::map_in_global_memory, {"copies by a tensor map in global memory", place});
}
TEST(WarpgroupFaults, NameATensorMapInGlobalMemoryThatNobodyHasAcquired) {
  const Several several(simt_device);
  expect_report_of([&] { several.box(warpgroup_kernels<DeviceKind::simt>(), 1, 0, 0, false); },
                   {"thread (0,0,0) copies by a tensor map in global memory", place});
}
TEST(WarpgroupFaults, NameACopyBeforeTheKernelBeforeHasEnded) {
  expect_report(
      WarpgroupFault::copy_before_grid_wait,
      {"thread (0,0,0) copies global memory before it has waited for the kernel before a dependent one", place});
}
TEST(WarpgroupFaults, NameAMissingFence) {
  expect_report(WarpgroupFault::wgmma_without_fence,
                {"issues wgmma with no wgmma.fence since its registers were free to be touched, at ", place});
}
TEST(WarpgroupFaults, NameWhatIsNeverWaitedFor) {
  expect_report(WarpgroupFault::wgmma_never_waited_for,
                {"exits with wgmma that it never waited for, issued at ", place}, 64);
  expect_report(WarpgroupFault::copy_never_waited_for,
                {"thread (0,0,0) has a bulk copy under way when the block ends, at ", place}, 64);
}
TEST(WarpgroupFaults, NameAWarpThatGoesItsOwnWay) {
  expect_report(WarpgroupFault::other_operand_in_one_warp,
                {"gives wgmma another descriptor than the other warps of its warpgroup, at ", place});
}

}  // namespace
}  // namespace lathe::testing
