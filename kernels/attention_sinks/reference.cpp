#include "kernels/attention_sinks/reference.h"

#include <algorithm>
#include <cmath>

namespace lathe::kernels::reference {
namespace {

const double* row(const Tensor& x, int64_t token, int64_t head) {
  return x.data<double>() + token * x.stride(0) + head * x.stride(1);
}

}  // namespace

void attention_sinks(const Tensor& out, const Tensor& lse_out, const Tensor& x, const Tensor& lse,
                     const Tensor& sinks) {
  for (int64_t t = 0; t < x.dim(0); ++t)
    for (int64_t h = 0; h < x.dim(1); ++h) {
      const double sum = lse.data<double>()[h * lse.stride(0) + t], sink = sinks.data<double>()[h];
      const double factor = 1 / (1 + std::exp(sink - sum));
      double* to = out.data<double>() + t * out.stride(0) + h * out.stride(1);
      for (int64_t d = 0; d < x.dim(2); ++d) to[d] = row(x, t, h)[d] * factor;
      if (lse_out.defined())
        lse_out.data<double>()[h * lse_out.stride(0) + t] =
            std::max(sum, sink) + std::log1p(std::exp(-std::abs(sum - sink)));
    }
}

void attention_sinks_backward(const Tensor& dots, const Tensor& shares, const Tensor& grad_out, const Tensor& out,
                              const Tensor& lse_out, const Tensor& sinks) {
  const int64_t heads = out.dim(1);
  for (int64_t t = 0; t < out.dim(0); ++t)
    for (int64_t h = 0; h < heads; ++h) {
      double dot = 0;
      for (int64_t d = 0; d < out.dim(2); ++d) dot += row(grad_out, t, h)[d] * row(out, t, h)[d];
      dots.data<double>()[t * heads + h] = dot;
      shares.data<double>()[t * heads + h] =
          std::exp(sinks.data<double>()[h] - lse_out.data<double>()[h * lse_out.stride(0) + t]);
    }
}

}  // namespace lathe::kernels::reference
