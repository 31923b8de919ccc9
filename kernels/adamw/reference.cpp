#include "kernels/adamw/reference.h"

#include <cmath>

#include "kernels/reference/element.h"

namespace lathe::kernels::reference {

void adamw(const Tensor& weight, const Tensor& grad, const Tensor& m, const Tensor& v, const AdamWParams& params) {
  const DType dtype = weight.dtype();
  const double correction1 = 1.0 - std::pow(params.beta1, static_cast<double>(params.step));
  const double correction2 = 1.0 - std::pow(params.beta2, static_cast<double>(params.step));
  for (int64_t i = 0; i < weight.numel(); ++i) {
    const double g = params.grad_scale * read(dtype, grad.raw(), i);
    const double m_new = params.beta1 * read(dtype, m.raw(), i) + (1.0 - params.beta1) * g;
    const double v_new = params.beta2 * read(dtype, v.raw(), i) + (1.0 - params.beta2) * g * g;
    const double decayed = read(dtype, weight.raw(), i) * (1.0 - params.learning_rate * params.weight_decay);
    const double update = m_new / (std::sqrt(v_new) / std::sqrt(correction2) + params.eps);
    write(dtype, m.raw(), i, m_new);
    write(dtype, v.raw(), i, v_new);
    write(dtype, weight.raw(), i, decayed - params.learning_rate / correction1 * update);
  }
}

}  // namespace lathe::kernels::reference
