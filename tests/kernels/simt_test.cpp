// The emulator finds what a GPU hides: each planted fault is found, and the report names the place.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <filesystem>
#include <numeric>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/random.h"
#include "core/tensor.h"
#include "kernels/cuda/runtime.h"
#include "kernels/simt/options.h"
#include "kernels/simt/runtime.h"
#include "kernels/simt/sanitizer.h"
#include "tests/support/operation_cases.h"
#include "tests/support/simt_kernels.h"
#include "tests/support/temporary_folder.h"

namespace lathe::testing {
namespace {

constexpr Device simt_device{DeviceKind::simt};
constexpr int threads = 64;

template <class T>
Tensor to_simt(const std::vector<T>& values) {
  const auto bytes = static_cast<int64_t>(values.size() * sizeof(T));
  const Tensor tensor = Tensor::empty({bytes}, DType::u8, simt_device);
  kernels::copy_bytes(simt_device, tensor.raw(), Device{}, values.data(), bytes);
  return tensor;
}

template <class T>
std::vector<T> from_simt(const Tensor& tensor) {
  std::vector<T> values(static_cast<size_t>(tensor.nbytes()) / sizeof(T));
  kernels::copy_bytes(Device{}, values.data(), simt_device, tensor.raw(), tensor.nbytes());
  return values;
}

std::vector<float> counting() {
  std::vector<float> values(threads + 4);
  std::iota(values.begin(), values.end(), 1.0f);
  return values;
}

std::vector<float> run_planted(Planted fault, const std::vector<float>& input = counting()) {
  const Tensor in = to_simt(input), out = to_simt(std::vector<float>(threads));
  launch_planted(fault, static_cast<float*>(out.raw()), static_cast<const float*>(in.raw()), threads);
  return from_simt<float>(out);
}

std::string report_of(Planted fault) {
  try {
    run_planted(fault);
  } catch (const Error& error) {
    return error.what();
  }
  return "no report";
}

void expect_report(Planted fault, const std::vector<std::string>& words) {
  const std::string report = report_of(fault);
  for (const std::string& word : words)
    EXPECT_NE(report.find(word), std::string::npos) << "expected '" << word << "' in: " << report;
}

TEST(Simt, RunsASoundKernelUnderEveryOrder) {
  for (const simt::FiberOrder order :
       {simt::FiberOrder::ascending, simt::FiberOrder::descending, simt::FiberOrder::shuffled}) {
    simt::set_fiber_order(order);
    const std::vector<float> out = run_planted(Planted::none);
    for (int i = 0; i < threads; ++i) EXPECT_EQ(out[static_cast<size_t>(i)], static_cast<float>(threads - i));
  }
  simt::set_fiber_order(simt::FiberOrder::ascending);
}

// What is known of a word stands for its bytes only as long as they have the same fate.
TEST(Simt, NeighboursMayWriteHalvesOfAWord) {
  const std::vector<float> out = run_planted(Planted::halves_of_words);
  for (int i = 0; i < threads; ++i) {
    const int sum_of_pair = i / 2 * 4 + 3;
    EXPECT_EQ(out[static_cast<size_t>(i)], static_cast<float>(sum_of_pair));
  }
}

TEST(Simt, AMissingBarrierShowsUnderSomeOrder) {
  if (simt::checks_shared_memory()) GTEST_SKIP() << "the race itself is reported in this build";
  std::vector<std::vector<uint32_t>> results;  // bits
  for (const simt::FiberOrder order : {simt::FiberOrder::ascending, simt::FiberOrder::descending}) {
    simt::set_fiber_order(order);
    results.emplace_back();
    for (const float value : run_planted(Planted::missing_barrier))
      results.back().push_back(std::bit_cast<uint32_t>(value));
  }
  simt::set_fiber_order(simt::FiberOrder::ascending);
  EXPECT_NE(results[0], results[1]);
}

// Reports of the checks that instrumented kernels make. Their lines come from debug information through addr2line.
class SimtMemoryChecks : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!simt::checks_shared_memory()) GTEST_SKIP() << "kernels are instrumented by a sanitizer in this build";
  }
};

TEST_F(SimtMemoryChecks, NameAMissingBarrier) {
  expect_report(Planted::missing_barrier,
                {"kernel planted, block (0,0,0): thread (0,0,0) reads shared memory that nobody has written",
                 "with no barrier between: a race", "simt_kernels.cpp:"});
}
// The file that a report names after "at ". A compiler cache may have it relative to the build folder, where the
// compiler ran (ccache's base_dir).
std::filesystem::path place_of(const std::string& report) {
  const size_t begin = report.rfind(" at ") + 4;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe");
  return program.parent_path().parent_path() / report.substr(begin, report.find(':', begin) - begin);
}
TEST_F(SimtMemoryChecks, NameAFileThatExists) {
  const TemporaryFolder elsewhere;
  const std::filesystem::path before = std::filesystem::current_path();
  std::filesystem::current_path(elsewhere.path());
  const std::string by_address = report_of(Planted::off_by_one_shared),
                    by_compiler = report_of(Planted::misaligned_vector);
  std::filesystem::current_path(before);
  for (const std::string& report : {by_address, by_compiler})
    EXPECT_TRUE(std::filesystem::exists(place_of(report))) << report;
}
TEST_F(SimtMemoryChecks, NameARaceBetweenWarps) {
  expect_report(Planted::race_between_warps,
                {"thread (32,0,0) writes shared memory (byte 0) that thread 0 of the block wrote", "a race"});
}
TEST_F(SimtMemoryChecks, NameARaceForHalfOfAWord) {
  expect_report(Planted::half_of_a_word_read,
                {"thread (1,0,0) writes shared memory (byte 2) that thread 0 of the block read", "a race"});
  expect_report(Planted::half_of_a_word_written,
                {"thread (1,0,0) writes shared memory (byte 0) that thread 0 of the block wrote", "a race"});
}
TEST_F(SimtMemoryChecks, NameAMissingWarpBarrier) { expect_report(Planted::missing_warp_barrier, {"a race"}); }
TEST_F(SimtMemoryChecks, NameAnAccessPastSharedMemory) {
  expect_report(Planted::off_by_one_shared, {"thread (63,0,0) accesses shared memory outside what the block has"});
}
TEST_F(SimtMemoryChecks, NameUnwrittenSharedMemory) {
  expect_report(Planted::unwritten_shared, {"thread (0,0,0) reads shared memory that nobody has written"});
}
TEST_F(SimtMemoryChecks, NameAReadOfACopyUnderWay) {
  expect_report(Planted::read_before_copy_arrived,
                {"thread (0,0,0) reads shared memory that a cp.async is still to write"});
}
TEST_F(SimtMemoryChecks, NameAMisalignedAccess) {
  expect_report(Planted::misaligned_scalar, {"thread (0,0,0) makes a misaligned access"});
}

TEST_F(SimtMemoryChecks, NameAReadBeforeTheWaitForTheKernelBefore) {
  expect_report(Planted::read_before_grid_wait,
                {"thread (0,0,0) touches global memory before it has waited for the kernel before a dependent one",
                 "simt_kernels.cpp:"});
}

TEST(Simt, NamesACopyBeforeTheWaitForTheKernelBefore) {
  expect_report(Planted::copy_before_grid_wait,
                {"copies global memory before it has waited for the kernel before a dependent one"});
}
TEST(Simt, NamesTheThreadThatLeftWithoutThatWait) {
  expect_report(Planted::exit_before_grid_wait,
                {"thread (63,0,0) exits without having waited for the kernel before a dependent one"});
}

TEST(Simt, UnwrittenSharedMemoryHoldsPoison) {
  if (simt::checks_shared_memory()) GTEST_SKIP() << "the read itself is reported in this build";
  for (const float value : run_planted(Planted::unwritten_shared)) EXPECT_TRUE(std::isnan(value));
}

TEST(Simt, NamesBothLinesOfADivergentBarrier) {
  expect_report(Planted::barrier_in_a_branch, {"divergent barrier: thread (0,0,0) waits for __syncthreads at ",
                                               "simt_kernels.cpp:", "but thread (32,0,0) waits"});
}
TEST(Simt, NamesTheThreadThatLeftBeforeABarrier) {
  expect_report(Planted::exit_before_barrier,
                {"divergent barrier: thread (0,0,0) waits", "but thread (63,0,0) has exited"});
}
TEST(Simt, NamesTheLaneMissingFromAShuffle) {
  expect_report(Planted::exit_before_shuffle,
                {"waits for __shfl_xor_sync at ", "but thread (7,0,0) has exited, which its mask names"});
}
TEST(Simt, NamesAShuffleFromOutsideItsMask) {
  expect_report(Planted::shuffle_from_outside_the_mask,
                {"shuffles from a lane that is not in the mask", "simt_kernels.cpp:"});
}
TEST(Simt, NamesACopyThatIsNeverWaitedFor) {
  expect_report(Planted::copy_never_waited_for,
                {"exits with cp.async copies that it never waited for, issued at ", "simt_kernels.cpp:"});
}
TEST(Simt, NamesAMisalignedVector) {
  expect_report(Planted::misaligned_vector, {"thread (1,0,0) makes a misaligned vector access", "simt_kernels.cpp:"});
}

#if LATHE_SIMT_ASAN
TEST(SimtDeathTest, AddressSanitizerNamesTheLineOfAnOffByOne) {
  EXPECT_DEATH(run_planted(Planted::off_by_one_shared), "use-after-poison");
  EXPECT_DEATH(run_planted(Planted::read_before_copy_arrived), "use-after-poison");
  EXPECT_DEATH(run_planted(Planted::off_by_one_global, std::vector<float>(threads)), "use-after-poison");
}
#endif

TEST(Simt, OrdersShowAnOrderDependentSum) {
  std::vector<float> input(threads, 0x1p-24f);
  input[0] = 1.0f;
  const float ascending = run_planted(Planted::order_dependent_sum, input)[0];
  simt::set_fiber_order(simt::FiberOrder::descending);
  const float descending = run_planted(Planted::order_dependent_sum, input)[0];
  simt::set_fiber_order(simt::FiberOrder::ascending);
  EXPECT_NE(ascending, descending);
}

TEST(Simt, RefusesShapesBeyondTheCard) {
  EXPECT_THROW(launch_shape(1025, 0), Error);
  EXPECT_THROW(launch_shape(32, (163 << 10) + 1), Error);
  EXPECT_NO_THROW(launch_shape(1024, 163 << 10));
  kernels::synchronize(simt_device);
}

TEST(Simt, WarpCollectivesGiveWhatCudaDefines) {
  std::vector<uint32_t> in(32);
  for (uint32_t i = 0; i < 32; ++i) in[i] = i * 7 % 32;
  const auto result = [&](Collective collective) {
    const Tensor input = to_simt(in), output = to_simt(std::vector<uint32_t>(32));
    launch_collective(collective, static_cast<uint32_t*>(output.raw()), static_cast<const uint32_t*>(input.raw()));
    return from_simt<uint32_t>(output);
  };
  const auto up = result(Collective::shuffle_up), down = result(Collective::shuffle_down),
             across = result(Collective::shuffle_xor);
  const auto quarters = result(Collective::shuffle_of_quarters), ballot = result(Collective::ballot);
  const auto largest = result(Collective::reduce_max), match = result(Collective::match);
  uint32_t votes = 0;
  for (uint32_t i = 0; i < 32; ++i) votes |= (in[i] % 3 == 0 ? 1u : 0u) << i;
  for (uint32_t i = 0; i < 32; ++i) {
    EXPECT_EQ(up[i], in[i < 3 ? i : i - 3]);
    EXPECT_EQ(down[i], in[i + 3 < 32 ? i + 3 : i]);
    EXPECT_EQ(across[i], in[i ^ 5]);
    EXPECT_EQ(quarters[i], in[i / 8 * 8 + 2]);
    EXPECT_EQ(ballot[i], votes);
    EXPECT_EQ(largest[i], 31u);
    uint32_t same = 0;
    for (uint32_t j = 0; j < 32; ++j) same |= (in[i] % 4 == in[j] % 4 ? 1u : 0u) << j;
    EXPECT_EQ(match[i], same);
  }
}

TEST(Simt, ARowIsSummedMoreThanOnce) {
  std::vector<float> in(row_sum_threads);
  std::iota(in.begin(), in.end(), 1.0f);
  const int total = row_sum_threads * (row_sum_threads + 1) / 2;
  for (const simt::FiberOrder order :
       {simt::FiberOrder::ascending, simt::FiberOrder::descending, simt::FiberOrder::shuffled}) {
    simt::set_fiber_order(order);
    const Tensor input = to_simt(in), output = to_simt(std::vector<float>(3 * row_sum_threads));
    launch_row_sums(static_cast<float*>(output.raw()), static_cast<const float*>(input.raw()));
    const std::vector<float> sums = from_simt<float>(output);
    for (size_t i = 0; i < sums.size(); ++i) {
      const int times = static_cast<int>(i) / row_sum_threads + 1;
      EXPECT_EQ(sums[i], static_cast<float>(total * times)) << i;
    }
  }
  simt::set_fiber_order(simt::FiberOrder::ascending);
}

// Small integers are exact in every operand type and every order of addition.
void expect_tile_product(Tile tile, DType dtype, int64_t k) {
  RandomStream random(5, RandomPurpose::test);
  const auto make = [&](int64_t rows) {
    std::vector<double> values(static_cast<size_t>(rows * k));
    for (double& value : values) value = static_cast<double>(random.below(17)) - 8;
    return values;
  };
  const auto store = [&](const std::vector<double>& values) {
    std::vector<std::byte> bytes(values.size() * static_cast<size_t>(size_of(dtype)));
    for (size_t i = 0; i < values.size(); ++i)
      store_element(bytes.data() + i * static_cast<size_t>(size_of(dtype)), dtype, values[i]);
    return bytes;
  };
  const std::vector<double> a = make(16), b = make(8);
  const Tensor left = to_simt(store(a)), right = to_simt(store(b)), out = to_simt(std::vector<float>(128));
  launch_tile(tile, out.raw(), left.raw(), right.raw());
  const std::vector<std::byte> found = from_simt<std::byte>(out);
  for (int64_t i = 0; i < 16; ++i)
    for (int64_t j = 0; j < 8; ++j) {
      double sum = 0;
      for (int64_t l = 0; l < k; ++l) sum += a[static_cast<size_t>(i * k + l)] * b[static_cast<size_t>(j * k + l)];
      EXPECT_EQ(load_element(found.data() + (i * 8 + j) * 4, tile == Tile::s8 ? DType::i32 : DType::f32), sum)
          << i << ", " << j;
    }
}

TEST(Simt, TensorCoreTilesMultiply) {
  expect_tile_product(Tile::bf16, DType::bf16, 16);
  expect_tile_product(Tile::f16, DType::f16, 16);
  expect_tile_product(Tile::tf32, DType::f32, 8);
  expect_tile_product(Tile::s8, DType::i8, 32);
  expect_tile_product(Tile::bf16_through_shared, DType::bf16, 16);
}

TEST(SimtRuntime, HoldsWorkBackUntilSomebodyWaits) {
  using namespace simt;
  const Tensor in = to_simt(counting()), out = to_simt(std::vector<float>(threads));
  const int64_t before = launches_run();
  launch_planted(Planted::none, static_cast<float*>(out.raw()), static_cast<const float*>(in.raw()), threads);
  EXPECT_EQ(launches_run(), before);
  kernels::synchronize(simt_device);
  EXPECT_EQ(launches_run(), before + 1);

  cudaStream_t stream = nullptr;
  cudaEvent_t event = nullptr;
  ASSERT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
  ASSERT_EQ(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), cudaSuccess);
  float first = 0;
  ASSERT_EQ(cudaMemcpyAsync(&first, out.raw(), sizeof first, cudaMemcpyDeviceToHost, stream), cudaSuccess);
  ASSERT_EQ(cudaEventRecord(event, stream), cudaSuccess);
  EXPECT_TRUE(std::isnan(first)) << "a host that does not wait must not see the result";
  ASSERT_EQ(cudaEventSynchronize(event), cudaSuccess);
  EXPECT_EQ(first, static_cast<float>(threads));
  EXPECT_EQ(cudaEventDestroy(event), cudaSuccess);
  EXPECT_EQ(cudaStreamDestroy(stream), cudaSuccess);
}

TEST(SimtRuntime, InjectsFailures) {
  void* pointer = nullptr;
  simt::fail_nth(simt::Call::allocation, 2);
  EXPECT_EQ(simt::cudaMalloc(&pointer, 100), simt::cudaSuccess);
  EXPECT_EQ(simt::cudaFree(pointer), simt::cudaSuccess);
  EXPECT_EQ(simt::cudaMalloc(&pointer, 100), simt::cudaErrorMemoryAllocation);
  EXPECT_EQ(simt::cudaGetLastError(), simt::cudaErrorMemoryAllocation);
  simt::fail_nth(simt::Call::launch, 2);
  launch_shape(32, 0);
  EXPECT_THROW(launch_shape(32, 0), Error);
  simt::fail_nth(simt::Call::copy, 1);
  EXPECT_THROW(to_simt(counting()), Error);
  EXPECT_NO_THROW(run_planted(Planted::none));
}

// Copies are as ever.
TEST(SimtRuntime, CountsKernelsThatItLeavesOut) {
  const Tensor in = to_simt(counting()), out = to_simt(std::vector<float>(threads, -1.0f));
  const int64_t before = simt::launches_run();
  simt::set_runs_kernels(false);
  launch_planted(Planted::none, static_cast<float*>(out.raw()), static_cast<const float*>(in.raw()), threads);
  EXPECT_EQ(from_simt<float>(out), std::vector<float>(threads, -1.0f));
  simt::set_runs_kernels(true);
  EXPECT_EQ(simt::launches_run() - before, 1);
  EXPECT_EQ(run_planted(Planted::none)[0], static_cast<float>(threads));
}

TEST(SimtRuntime, OutOfMemoryNamesTheBytesAndGoesOn) {
  EXPECT_THROW(Tensor::empty({int64_t{20} << 30}, DType::u8, simt_device), ResourceError);
  EXPECT_NO_THROW(run_planted(Planted::none));
}

TEST(SimtDeathTest, TheHostCannotTouchDeviceMemory) {
  const Tensor tensor = to_simt(counting());
  EXPECT_DEATH(*static_cast<volatile float*>(tensor.raw()) = 1.0f,
               "host touched memory of a simt device|use-after-poison|SEGV");
}

}  // namespace
}  // namespace lathe::testing
