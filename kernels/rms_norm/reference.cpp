#include "kernels/rms_norm/reference.h"

#include <cmath>

#include "kernels/reference/element.h"

namespace lathe::kernels::reference {
namespace {

double at(const Tensor& t, int64_t row, int64_t column) { return read(t.dtype(), t.raw(), row * t.stride(0) + column); }
double at(const Tensor& t, int64_t i) { return read(t.dtype(), t.raw(), i); }

}  // namespace

void rms_norm_forward(const Tensor& out, const Tensor& rstd, const Tensor& x, const Tensor& weight, float eps) {
  const DType dtype = x.dtype();
  for (int64_t row = 0; row < x.dim(0); ++row) {
    double squares = 0;
    for (int64_t i = 0; i < x.dim(1); ++i) squares += at(x, row, i) * at(x, row, i);
    const double r = 1.0 / std::sqrt(squares / static_cast<double>(x.dim(1)) + eps);
    if (rstd.defined()) write(rstd.dtype(), rstd.raw(), row, r);
    for (int64_t i = 0; i < x.dim(1); ++i) {
      write(dtype, out.raw(), row * out.stride(0) + i, round_to(dtype, at(x, row, i) * r) * at(weight, i));
    }
  }
}

void rms_norm_residual_forward(const Tensor& out, const Tensor& sum, const Tensor& rstd, const Tensor& x,
                               const Tensor& residual, const Tensor& weight, float eps) {
  for (int64_t row = 0; row < x.dim(0); ++row) {
    for (int64_t i = 0; i < x.dim(1); ++i) {
      write(sum.dtype(), sum.raw(), row * sum.stride(0) + i, at(x, row, i) + at(residual, row, i));
    }
  }
  rms_norm_forward(out, rstd, sum, weight, eps);
}

void rms_norm_backward(const Tensor& grad_x, const Tensor& grad_weight, const Tensor& grad_out, const Tensor& grad_sum,
                       const Tensor& x, const Tensor& weight, const Tensor& rstd, const Tensor& cu_seqlens) {
  const int64_t columns = x.dim(1);
  if (grad_weight.defined()) {
    const auto ends = cu_seqlens.span<int32_t>();
    for (size_t s = 0; s + 1 < ends.size(); ++s) {
      for (int64_t i = 0; i < columns; ++i) {
        double sum = 0;
        for (int64_t t = ends[s]; t < ends[s + 1]; ++t) sum += at(grad_out, t, i) * at(x, t, i) * at(rstd, t);
        write(grad_weight.dtype(), grad_weight.raw(), i, at(grad_weight, i) + sum);
      }
    }
  }
  for (int64_t row = 0; row < x.dim(0); ++row) {
    const double r = at(rstd, row);
    double products = 0;
    for (int64_t i = 0; i < columns; ++i) products += at(grad_out, row, i) * at(weight, i) * at(x, row, i) * r;
    const double mean = products / static_cast<double>(columns);
    for (int64_t i = 0; i < columns; ++i) {
      const double g = at(grad_out, row, i) * at(weight, i), n = at(x, row, i) * r;
      const double through = grad_sum.defined() ? at(grad_sum, row, i) : 0.0;
      write(grad_x.dtype(), grad_x.raw(), row * grad_x.stride(0) + i, r * (g - n * mean) + through);
    }
  }
}

}  // namespace lathe::kernels::reference
