#include "kernels/sgd/reference.h"

#include "kernels/reference/element.h"

namespace lathe::kernels::reference {

void sgd(const Tensor& weight, const Tensor& grad, const SgdParams& params) {
  for (int64_t i = 0; i < weight.numel(); ++i) {
    const double w = read(weight.dtype(), weight.raw(), i), g = read(grad.dtype(), grad.raw(), i);
    write(weight.dtype(), weight.raw(), i,
          w - params.learning_rate * (params.grad_scale * g + params.weight_decay * w));
  }
}

}  // namespace lathe::kernels::reference
