// adamw: against the f64 reference in every instruction set, and five steps of torch.optim.AdamW.
#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "core/error.h"
#include "kernels/copy/copy.h"
#include "tests/kernels/adamw_cases.h"
#include "tests/support/golden.h"
#include "tests/support/kernel_checks.h"

namespace lathe::testing {
namespace {

LATHE_CHECK_OPERATIONS(adamw_operations());

// Five steps from param.0 in one dtype; `relative` bounds the error of each result against PyTorch's f64, relative to the
// tensor's largest element.
void follow_golden(const std::string& run, double weight_decay, DType dtype, double relative) {
  auto golden = golden_tensors("kernels/adamw.safetensors");
  const Tensor weight = kernels::cast(golden[run + ".param.0"], dtype).clone();
  const Tensor m = Tensor::zeros(weight.shape(), dtype), v = Tensor::zeros(weight.shape(), dtype);
  for (int64_t step = 1; step <= 5; ++step) {
    const std::string number = "." + std::to_string(step);
    kernels::adamw(weight, kernels::cast(golden[run + ".grad" + number], dtype), m, v,
                   {.learning_rate = 1e-2, .weight_decay = weight_decay, .step = step});
    const std::pair<const Tensor*, std::string> results[] = {
        {&weight, ".param"}, {&m, ".exp_avg"}, {&v, ".exp_avg_sq"}};
    for (const auto& [found, name] : results) {
      const Tensor wide = kernels::cast(*found, DType::f64), &expected = golden[run + name + number];
      double largest = 0;
      for (const double x : expected.span<double>()) largest = std::max(largest, std::abs(x));
      for (int64_t i = 0; i < wide.numel(); ++i) {
        EXPECT_NEAR(wide.data<double>()[i], expected.data<double>()[i], relative * largest)
            << run << name << number << "[" << i << "]";
      }
    }
  }
}

// About ten roundings a step.
TEST(AdamW, FollowsPyTorchInDouble) {
  follow_golden("plain", 0.0, DType::f64, 50 * 0x1p-53);
  follow_golden("decay", 0.1, DType::f64, 50 * 0x1p-53);
}
TEST(AdamW, FollowsPyTorchInFloat) {
  follow_golden("plain", 0.0, DType::f32, 50 * 0x1p-24);
  follow_golden("decay", 0.1, DType::f32, 50 * 0x1p-24);
}

TEST(AdamW, ZeroGradientsLeaveAWeightAsItIs) {
  const Tensor weight = Tensor::zeros({3}, DType::f32), zero = Tensor::zeros({3}, DType::f32);
  kernels::fill(weight, 0.3);
  kernels::adamw(weight, zero, Tensor::zeros({3}, DType::f32), Tensor::zeros({3}, DType::f32), {});
  for (const float w : weight.span<float>()) EXPECT_EQ(w, 0.3f);
}

TEST(AdamW, RefusesWhatDoesNotFit) {
  const Tensor w = Tensor::zeros({4}, DType::f32);
  EXPECT_THROW(kernels::adamw(w, Tensor::zeros({5}, DType::f32), w, w, {}), ShapeError);
  EXPECT_THROW(kernels::adamw(w, Tensor::zeros({4}, DType::bf16), w, w, {}), ShapeError);
  EXPECT_THROW(kernels::adamw(w, w, w, Tensor{}, {}), ShapeError);
  EXPECT_THROW(kernels::adamw(w, w, w, w, {.step = 0}), ConfigError);
}

}  // namespace
}  // namespace lathe::testing
