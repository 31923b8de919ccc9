#include "kernels/lion/lion.h"

#include "core/thread_pool.h"
#include "kernels/checks/expect.h"
#include "kernels/dispatch.h"
#include "kernels/lion/bodies.h"
#include "kernels/lion/reference.h"

namespace lathe::kernels {

void lion(const Tensor& weight, const Tensor& grad, const Tensor& m, const LionParams& params) {
  expect("lion", "weight", weight).dtype({DType::f32, DType::f64}).contiguous();
  expect("lion", "grad", grad).shape(weight.shape()).dtype(weight.dtype()).contiguous().device(weight.device());
  expect("lion", "m", m).shape(weight.shape()).dtype(weight.dtype()).contiguous().device(weight.device());
  if (weight.dtype() == DType::f64) {
    expect_cpu("lion", weight);
    return reference::lion(weight, grad, m, params);
  }
  if (weight.numel() == 0) return;
  const LionArgs args{.weight = weight.data<float>(),
                      .grad = grad.data<float>(),
                      .m = m.data<float>(),
                      .grad_scale = static_cast<float>(params.grad_scale),
                      .keep_weight = static_cast<float>(1.0 - params.learning_rate * params.weight_decay),
                      .learning_rate = static_cast<float>(params.learning_rate),
                      .beta1 = static_cast<float>(params.beta1),
                      .one_less_beta1 = static_cast<float>(1.0 - params.beta1),
                      .beta2 = static_cast<float>(params.beta2),
                      .one_less_beta2 = static_cast<float>(1.0 - params.beta2),
                      .begin = 0,
                      .end = weight.numel()};
  if (weight.device().kind != DeviceKind::cpu)
    return with_device(weight.device(), [&]<DeviceKind kind>() { lion_range<kind>(args); });
  parallel_for(weight.numel(), 32768, [&](int64_t begin, int64_t end) {
    LionArgs range = args;
    range.begin = begin;
    range.end = end;
    with_isa([&]<Isa isa>() { lion_range<isa>(range); });
  });
}

}  // namespace lathe::kernels
