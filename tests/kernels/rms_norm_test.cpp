// rms_norm: against the f64 reference on every device and instruction set, PyTorch's answers, transformers' rounding,
// and what it must refuse.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "core/error.h"
#include "kernels/copy/copy.h"
#include "tests/kernels/rms_norm_cases.h"
#include "tests/support/golden.h"
#include "tests/support/kernel_checks.h"

namespace lathe::testing {
namespace {

LATHE_CHECK_OPERATIONS(rms_norm_operations());

constexpr float eps = 1e-5f;

// Sums of 24 terms below 100 in f64; the golden eps is 1e-5, ours its nearest f32, which moves a result by 2e-13 of
// itself.
void expect_close(const Tensor& found, const Tensor& expected) {
  for (int64_t i = 0; i < expected.numel(); ++i) {
    EXPECT_NEAR(found.data<double>()[i], expected.data<double>()[i], 1e-12 * (1 + std::abs(expected.data<double>()[i])))
        << i;
  }
}

TEST(RmsNorm, AnswersAsPyTorchInDouble) {
  auto golden = golden_tensors("kernels/rms_norm.safetensors");
  const Tensor &x = golden["x"], &weight = golden["weight"];
  const Tensor out = Tensor::empty(x.shape(), DType::f64), rstd = Tensor::empty({x.dim(0)}, DType::f64);
  kernels::rms_norm_forward(out, rstd, x, weight, eps);
  expect_close(out, golden["y"]);
  const Tensor grad_x = Tensor::empty(x.shape(), DType::f64), grad_weight = Tensor::zeros(weight.shape(), DType::f64);
  const int32_t bounds[] = {0, static_cast<int32_t>(x.dim(0))};
  kernels::rms_norm_backward(grad_x, grad_weight, golden["dy"], {}, x, weight, rstd, Tensor::of<int32_t>(bounds, {2}));
  expect_close(grad_x, golden["dx"]);
  expect_close(grad_weight, golden["dweight"]);
}

// transformers: weight * (x · rstd).to(bfloat16). The product of the two bf16 is rounded once more.
TEST(RmsNorm, RoundsTheNormedRowBeforeTheWeight) {
  const int64_t width = 64;
  const Tensor x = Tensor::empty({1, width}, DType::bf16), weight = Tensor::empty({width}, DType::bf16);
  RandomStream random(21, RandomPurpose::test);
  for (bf16& v : x.span<bf16>()) v = bf16(random.normal());
  for (bf16& v : weight.span<bf16>()) v = bf16(0.5f + random.uniform());
  const Tensor out = Tensor::empty({1, width}, DType::bf16), rstd = Tensor::empty({1}, DType::f32);
  kernels::rms_norm_forward(out, rstd, x, weight, eps);
  int once_differs = 0;
  for (int64_t i = 0; i < width; ++i) {
    const float normed = static_cast<float>(x.data<bf16>()[i]) * rstd.data<float>()[0],
                w = static_cast<float>(weight.data<bf16>()[i]);
    EXPECT_EQ(out.data<bf16>()[i].bits, bf16(static_cast<float>(bf16(normed)) * w).bits) << i;
    once_differs += out.data<bf16>()[i].bits != bf16(normed * w).bits;
  }
  EXPECT_GT(once_differs, 0) << "these inputs do not tell one rounding from two";
}

TEST(RmsNorm, ResidualFormIsAddThenNorm) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const Tensor values = Tensor::empty({3, 77}, DType::f32), weight = Tensor::empty({77}, DType::f32);
    RandomStream random(4, RandomPurpose::test);
    for (float& v : values.span<float>()) v = random.normal();
    for (float& v : weight.span<float>()) v = random.uniform();
    const Tensor x = kernels::cast(values, dtype), w = kernels::cast(weight, dtype), residual = x.clone();
    const Tensor sum = Tensor::empty({3, 77}, dtype), out = Tensor::empty({3, 77}, dtype),
                 expected = Tensor::empty({3, 77}, dtype);
    const Tensor rstd = Tensor::empty({3}, DType::f32), expected_rstd = Tensor::empty({3}, DType::f32);
    kernels::rms_norm_residual_forward(out, sum, rstd, x, residual, w, eps);
    kernels::rms_norm_forward(expected, expected_rstd, sum, w, eps);
    EXPECT_EQ(std::memcmp(out.raw(), expected.raw(), static_cast<size_t>(out.nbytes())), 0);
    EXPECT_EQ(std::memcmp(rstd.raw(), expected_rstd.raw(), static_cast<size_t>(rstd.nbytes())), 0);
  }
}

TEST(RmsNorm, WhatIsBrokenInARowStaysInThatRow) {
  const Tensor x = Tensor::zeros({3, 33}, DType::f32), weight = Tensor::zeros({33}, DType::f32),
               out = Tensor::empty({3, 33}, DType::f32);
  kernels::fill(x, 1.0);
  kernels::fill(weight, 1.0);
  x.data<float>()[33 + 32] = NAN;
  x.data<float>()[66] = 1e30f;  // its square overflows, as it does in f32 PyTorch: the row becomes zeros
  kernels::rms_norm_forward(out, {}, x, weight, 0.0f);
  for (int64_t i = 0; i < 33; ++i) {
    EXPECT_EQ(out.data<float>()[i], 1.0f);
    EXPECT_TRUE(std::isnan(out.data<float>()[33 + i]));
    EXPECT_EQ(out.data<float>()[66 + i], 0.0f);
  }
}

TEST(RmsNorm, RefusesWhatDoesNotFit) {
  const Tensor x = Tensor::zeros({2, 8}, DType::f32), weight = Tensor::zeros({8}, DType::f32),
               rstd = Tensor::zeros({2}, DType::f32);
  EXPECT_THROW(kernels::rms_norm_forward(x, rstd, x, Tensor::zeros({9}, DType::f32), eps), ShapeError);
  EXPECT_THROW(kernels::rms_norm_forward(x, rstd, x, Tensor::zeros({8}, DType::bf16), eps), ShapeError);
  EXPECT_THROW(kernels::rms_norm_forward(x, Tensor::zeros({3}, DType::f32), x, weight, eps), ShapeError);
  EXPECT_THROW(kernels::rms_norm_forward(Tensor::zeros({2, 8}, DType::bf16), rstd, x, weight, eps), ShapeError);
  EXPECT_THROW(kernels::rms_norm_forward(x, rstd, Tensor::zeros({16}, DType::f32), weight, eps), ShapeError);
  EXPECT_THROW(kernels::rms_norm_backward(x, {}, x, {}, x, weight, Tensor{}, {}), ShapeError);
  EXPECT_THROW(kernels::rms_norm_backward(x, weight, x, {}, x, weight, rstd, Tensor{}), ShapeError);
}

}  // namespace
}  // namespace lathe::testing
