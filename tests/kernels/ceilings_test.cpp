// The kernels behind lathe-bench's ceilings do what they are counted for.
#include "kernels/ceilings/ceilings.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "core/error.h"
#include "kernels/copy/copy.h"
#include "kernels/cuda/runtime.h"
#include "kernels/simt/options.h"

namespace lathe::testing {
namespace {

std::vector<Device> devices() {
  std::vector<Device> found{{DeviceKind::simt}};
  if (const Device card{DeviceKind::cuda}; kernels::why_unavailable(card).empty()) found.push_back(card);
  return found;
}

class Ceilings : public ::testing::TestWithParam<Device> {};

TEST_P(Ceilings, TheCopyCopiesEveryByte) {
  const Tensor in = Tensor::empty({64 * 1023}, DType::u8);
  for (int64_t i = 0; i < in.numel(); ++i) in.data<uint8_t>()[i] = static_cast<uint8_t>(i * 7 + i / 251);
  const Tensor there = kernels::moved(in, GetParam()), out = Tensor::zeros(in.shape(), DType::u8, GetParam());
  kernels::copy_at_full_bandwidth(out, there);
  const Tensor back = kernels::moved(out, {});
  EXPECT_EQ(std::memcmp(back.raw(), in.raw(), static_cast<size_t>(in.nbytes())), 0);
  EXPECT_THROW(kernels::copy_at_full_bandwidth(out.slice(0, 0, 100), there.slice(0, 0, 100)), ShapeError);
}

TEST_P(Ceilings, ProductsAreDoneAndCounted) {
  const int64_t threads = kernels::ceiling_threads(GetParam());
  const Tensor out = Tensor::zeros({threads}, DType::f32, GetParam());
  // Of each thread in two rounds: 8 instructions of a warp, 16 × 8 × 16 products; on a card of sm_90 8 of a warpgroup,
  // 64 × 256 × 16.
  const double products = kernels::multiply_bf16_at_peak(out, 2) / 2 / static_cast<double>(threads);
  EXPECT_TRUE(products == 2 * 8 * 64 || (GetParam().kind == DeviceKind::cuda && products == 2 * 8 * 2048)) << products;
  const Tensor sums = kernels::moved(out, {});
  for (const float sum : sums.span<float>()) {  // of products of numbers in [1, 2)
    EXPECT_GE(sum, products);
    EXPECT_LT(sum, 4 * products);
  }
  // A round of f32 is 8 for each thread.
  EXPECT_EQ(kernels::multiply_f32_at_peak(out, 3), 2.0 * 3 * 8 * static_cast<double>(threads));
  const Tensor chains = kernels::moved(out, {});
  // Σ over the chains of x ↦ 0.75 x + 0.25, three times, from x = thread + chain: 1 + (x − 1) · 27/64.
  for (int i : {0, 1, 255}) {
    double wanted = 0;
    for (int c = 0; c < 8; ++c) wanted += 1 + (i + c - 1) * 27.0 / 64;
    EXPECT_NEAR(chains.data<float>()[i], wanted, 1e-6 * (1 + wanted)) << i;
  }
}

TEST(CeilingsOfHopper, ProductsOfWarpgroupsAreDoneAndCounted) {
  const Device device{DeviceKind::simt};
  const int64_t threads = kernels::ceiling_threads(device);
  const Tensor out = Tensor::zeros({threads}, DType::f32, device);
  simt::pretend(simt::Machine::hopper);
  const double operations = kernels::multiply_bf16_at_peak(out, 1);
  const Tensor sums = kernels::moved(out, {});
  simt::pretend(simt::Machine::two_cards);
  // A round is, for each warpgroup, 8 instructions of 64 × 256 × 16 products.
  EXPECT_EQ(operations, 2.0 * 8 * 64 * 256 * 16 * static_cast<double>(threads / 128));
  for (const float sum : sums.span<float>()) {
    // 128 elements of 8 times 16 products of numbers in [1, 2).
    EXPECT_GE(sum, 128 * 8 * 16);
    EXPECT_LT(sum, 128 * 8 * 16 * 4);
  }
}

INSTANTIATE_TEST_SUITE_P(Every, Ceilings, ::testing::ValuesIn(devices()),
                         [](const auto& info) { return to_string(info.param).substr(0, 4); });

}  // namespace
}  // namespace lathe::testing
