#include "kernels/column_scale/reference.h"

#include "kernels/reference/element.h"

namespace lathe::kernels::reference {
namespace {

double at(const Tensor& matrix, int64_t row, int64_t column) {
  return read(matrix.dtype(), matrix.raw(), row * matrix.stride(0) + column);
}
double at(const Tensor& vector, int64_t i) { return read(vector.dtype(), vector.raw(), i); }

}  // namespace

void column_scale(const Tensor& out, const Tensor& x, const Tensor& scale, const Tensor& bias, const Tensor& residual) {
  for (int64_t t = 0; t < x.dim(0); ++t)
    for (int64_t n = 0; n < x.dim(1); ++n) {
      double value = at(scale, n) * at(x, t, n);
      if (bias.defined()) value += at(bias, n);
      if (residual.defined()) value += at(residual, t, n);
      write(out.dtype(), out.raw(), t * out.stride(0) + n, value);
    }
}

void column_scale_gradient(const Tensor& grad_scale, const Tensor& grad_out, const Tensor& x, const Tensor& factor,
                           const Tensor& cu_seqlens) {
  const auto bounds = cu_seqlens.span<int32_t>();
  for (size_t s = 0; s + 1 < bounds.size(); ++s)
    for (int64_t n = 0; n < x.dim(1); ++n) {
      double sum = 0;
      for (int64_t t = bounds[s]; t < bounds[s + 1]; ++t) sum += at(grad_out, t, n) * at(x, t, n);
      write(grad_scale.dtype(), grad_scale.raw(), n, at(grad_scale, n) + at(factor, n) * sum);
    }
}

}  // namespace lathe::kernels::reference
