// sgd: against the f64 reference in every body, and steps of torch.optim.SGD.
#include "tests/kernels/optimizer_golden.h"
#include "tests/kernels/sgd_cases.h"
#include "tests/support/kernel_checks.h"

namespace lathe::testing {
namespace {

LATHE_CHECK_OPERATIONS(sgd_operations());

// Three roundings a step.
TEST(Sgd, FollowsPyTorch) {
  for (const DType dtype : {DType::f64, DType::f32})
    follow_optimizer("kernels/sgd.safetensors", 0, dtype, 20,
                     [](const Tensor& weight, const Tensor& grad, const Tensor&) {
                       kernels::sgd(weight, grad, {.learning_rate = 1e-2, .weight_decay = 0.1});
                     });
}

TEST(Sgd, RefusesWhatDoesNotFit) {
  const Tensor w = Tensor::zeros({4}, DType::f32);
  EXPECT_THROW(kernels::sgd(w, Tensor::zeros({5}, DType::f32), {}), ShapeError);
  EXPECT_THROW(kernels::sgd(w, Tensor::zeros({4}, DType::bf16), {}), ShapeError);
}

}  // namespace
}  // namespace lathe::testing
