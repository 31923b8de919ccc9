#include <cmath>

#include "kernels/softcap/reference.h"

namespace lathe::kernels::reference {

void softcap(const Tensor& out, const Tensor& x, double cap) {
  for (int64_t t = 0; t < x.dim(0); ++t)
    for (int64_t n = 0; n < x.dim(1); ++n)
      out.data<double>()[t * out.stride(0) + n] = cap * std::tanh(x.data<double>()[t * x.stride(0) + n] / cap);
}

}  // namespace lathe::kernels::reference
