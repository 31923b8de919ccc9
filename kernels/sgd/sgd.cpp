#include "kernels/sgd/sgd.h"

#include "core/thread_pool.h"
#include "kernels/checks/expect.h"
#include "kernels/dispatch.h"
#include "kernels/sgd/bodies.h"
#include "kernels/sgd/reference.h"

namespace lathe::kernels {

void sgd(const Tensor& weight, const Tensor& grad, const SgdParams& params) {
  expect("sgd", "weight", weight).dtype({DType::f32, DType::f64}).contiguous();
  expect("sgd", "grad", grad).shape(weight.shape()).dtype(weight.dtype()).contiguous().device(weight.device());
  if (weight.dtype() == DType::f64) {
    expect_cpu("sgd", weight);
    return reference::sgd(weight, grad, params);
  }
  if (weight.numel() == 0) return;
  const SgdArgs args{.weight = weight.data<float>(),
                     .grad = grad.data<float>(),
                     .keep_weight = static_cast<float>(1.0 - params.learning_rate * params.weight_decay),
                     .step_size = static_cast<float>(params.learning_rate * params.grad_scale),
                     .begin = 0,
                     .end = weight.numel()};
  if (weight.device().kind != DeviceKind::cpu)
    return with_device(weight.device(), [&]<DeviceKind kind>() { sgd_range<kind>(args); });
  parallel_for(weight.numel(), 32768, [&](int64_t begin, int64_t end) {
    SgdArgs range = args;
    range.begin = begin;
    range.end = end;
    with_isa([&]<Isa isa>() { sgd_range<isa>(range); });
  });
}

}  // namespace lathe::kernels
