#include "kernels/adamw/cpu.h"

#include "kernels/simd/row.h"

namespace lathe::kernels::LATHE_ISA {

void adamw_range(AdamWArgs args) {
  const Vec grad_scale = splat(args.grad_scale), keep_weight = splat(args.keep_weight), eps = splat(args.eps);
  const Vec beta1 = splat(args.beta1), one_less_beta1 = splat(args.one_less_beta1);
  const Vec beta2 = splat(args.beta2), one_less_beta2 = splat(args.one_less_beta2);
  const Vec step_size = splat(args.step_size), inverse_correction2 = splat(args.inverse_correction2);
  float* weight = args.weight + args.begin;
  const float* grad = args.grad + args.begin;
  float* first = args.m + args.begin;
  float* second = args.v + args.begin;
  for_row(args.end - args.begin, [&](int64_t i, int count) {
    const Vec g = grad_scale * load_some(grad + i, count);
    const Vec m = fma(beta1, load_some(first + i, count), one_less_beta1 * g);
    const Vec v = fma(beta2, load_some(second + i, count), one_less_beta2 * (g * g));
    const Vec denominator = fma(sqrt(v), inverse_correction2, eps);
    const Vec decayed = keep_weight * load_some(weight + i, count);
    store_some(first + i, m, count);
    store_some(second + i, v, count);
    store_some(weight + i, decayed - step_size * (m / denominator), count);
  });
}

}  // namespace lathe::kernels::LATHE_ISA
