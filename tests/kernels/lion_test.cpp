// lion: against the f64 reference in every body, and bitsandbytes' steps.
#include "tests/kernels/lion_cases.h"
#include "tests/kernels/optimizer_golden.h"
#include "tests/support/kernel_checks.h"

namespace lathe::testing {
namespace {

LATHE_CHECK_OPERATIONS(lion_operations());

// Computed by bitsandbytes in f32: five roundings a step, there and here.
TEST(Lion, FollowsBitsandbytes) {
  follow_optimizer(
      "kernels/lion.safetensors", 1, DType::f32, 40, [](const Tensor& weight, const Tensor& grad, const Tensor& m) {
        kernels::lion(weight, grad, m, {.learning_rate = 1e-2, .beta1 = 0.9, .beta2 = 0.99, .weight_decay = 0.1});
      });
}

TEST(Lion, RefusesWhatDoesNotFit) {
  const Tensor w = Tensor::zeros({4}, DType::f32);
  EXPECT_THROW(kernels::lion(w, Tensor::zeros({5}, DType::f32), w, {}), ShapeError);
  EXPECT_THROW(kernels::lion(w, w, Tensor{}, {}), ShapeError);
}

}  // namespace
}  // namespace lathe::testing
