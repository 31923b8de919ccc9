#include "kernels/lion/reference.h"

#include "kernels/reference/element.h"

namespace lathe::kernels::reference {

void lion(const Tensor& weight, const Tensor& grad, const Tensor& m, const LionParams& params) {
  for (int64_t i = 0; i < weight.numel(); ++i) {
    const double g = params.grad_scale * read(grad.dtype(), grad.raw(), i);
    const double w = read(weight.dtype(), weight.raw(), i), mean = read(m.dtype(), m.raw(), i);
    const double direction = params.beta1 * mean + (1 - params.beta1) * g;
    const double sign = direction > 0 ? 1 : direction < 0 ? -1 : 0;
    write(weight.dtype(), weight.raw(), i,
          w - params.learning_rate * params.weight_decay * w - params.learning_rate * sign);
    write(m.dtype(), m.raw(), i, params.beta2 * mean + (1 - params.beta2) * g);
  }
}

}  // namespace lathe::kernels::reference
