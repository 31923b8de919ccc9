#include "kernels/adamw/adamw.h"

#include <cmath>
#include <string>

#include "core/error.h"
#include "core/thread_pool.h"
#include "kernels/adamw/cpu.h"
#include "kernels/adamw/reference.h"
#include "kernels/checks/expect.h"

namespace lathe::kernels {

void adamw(const Tensor& weight, const Tensor& grad, const Tensor& m, const Tensor& v, const AdamWParams& params) {
  expect("adamw", "weight", weight).dtype({DType::f32, DType::f64}).contiguous();
  for (const auto& [name, tensor] : {std::pair{"grad", &grad}, std::pair{"m", &m}, std::pair{"v", &v}}) {
    expect("adamw", name, *tensor).shape(weight.shape()).dtype(weight.dtype()).contiguous().device(weight.device());
  }
  if (params.step < 1) throw ConfigError("step", "AdamW counts steps from 1, found " + std::to_string(params.step));
  expect_cpu("adamw", weight);
  if (weight.dtype() == DType::f64) return reference::adamw(weight, grad, m, v, params);

  const double step = static_cast<double>(params.step);
  AdamWArgs args{};
  args.weight = weight.data<float>();
  args.grad = grad.data<float>();
  args.m = m.data<float>();
  args.v = v.data<float>();
  args.grad_scale = static_cast<float>(params.grad_scale);
  args.keep_weight = static_cast<float>(1.0 - params.learning_rate * params.weight_decay);
  args.beta1 = static_cast<float>(params.beta1);
  args.one_less_beta1 = static_cast<float>(1.0 - params.beta1);
  args.beta2 = static_cast<float>(params.beta2);
  args.one_less_beta2 = static_cast<float>(1.0 - params.beta2);
  args.step_size = static_cast<float>(params.learning_rate / (1.0 - std::pow(params.beta1, step)));
  args.inverse_correction2 = static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(params.beta2, step)));
  args.eps = static_cast<float>(params.eps);
  parallel_for(weight.numel(), 16384, [&](int64_t begin, int64_t end) {
    AdamWArgs range = args;
    range.begin = begin;
    range.end = end;
    cpu::adamw_range(range);
  });
}

}  // namespace lathe::kernels
