// int8 blocks: against the reference on every device and instruction set, how much they lose, and what they must
// refuse.
#include <gtest/gtest.h>

#include "core/error.h"
#include "tests/kernels/int8_blocks_cases.h"
#include "tests/support/kernel_checks.h"

namespace lathe::testing {
namespace {

LATHE_CHECK_OPERATIONS(int8_blocks_operations());

// A code is off by half a step at most, and absmax / 127 · 127 comes back to a rounding.
TEST(Int8Blocks, LoseHalfAStepAtMost) {
  const Tensor weight = Tensor::empty({8, 200}, DType::f32), back = Tensor::empty({8, 200}, DType::f32);
  RandomStream random(127, RandomPurpose::test);
  for (float& v : weight.span<float>()) v = random.normal();
  const kernels::Int8Weight quantised = kernels::quantize_int8(weight);
  kernels::int8_dequantize(back, quantised);
  for (int64_t row = 0; row < 8; ++row)
    for (int64_t i = 0; i < 200; ++i) {
      const float scale = quantised.scales.data<float>()[row * 4 + i / 64];
      EXPECT_NEAR(back.data<float>()[row * 200 + i], weight.data<float>()[row * 200 + i], scale * (0.5f + 0x1p-15f));
    }
}

TEST(Int8Blocks, RefuseWhatDoesNotFit) {
  const Tensor weight = Tensor::zeros({2, 65}, DType::f32);
  const kernels::Int8Weight quantised = kernels::quantize_int8(weight);
  EXPECT_THROW(kernels::int8_quantize(quantised, Tensor::zeros({2, 64}, DType::f32)), ShapeError);
  EXPECT_THROW(kernels::int8_quantize({quantised.codes, Tensor::zeros({2, 1}, DType::f32)}, weight), ShapeError);
  EXPECT_THROW(kernels::int8_dequantize(Tensor::zeros({1, 65}, DType::f32), quantised, 2), ShapeError);
  EXPECT_THROW(kernels::int8_dequantize(Tensor::zeros({2, 65}, DType::u8), quantised), ShapeError);
}

}  // namespace
}  // namespace lathe::testing
