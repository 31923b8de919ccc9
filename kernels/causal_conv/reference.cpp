#include "kernels/causal_conv/reference.h"

#include <cmath>
#include <vector>

#include "kernels/reference/rows.h"

namespace lathe::kernels::reference {
namespace {

double logistic(double x) { return 1.0 / (1.0 + std::exp(-x)); }
double silu(double x) { return x / (1.0 + std::exp(-x)); }

// One column of the convolution.
struct Column {
  const Tensor &weight, &bias;
  int64_t i;

  int64_t taps() const { return weight.dim(1); }
  double tap(int64_t j) const { return at(weight, i * taps() + j); }
  // x_before(k): x of the token that is k before, of which there are so many.
  template <class XBefore>
  double convolved(int64_t tokens_before, const XBefore& x_before) const {
    double sum = bias.defined() ? at(bias, i) : 0.0;
    for (int64_t j = 0; j < taps(); ++j)
      if (const int64_t before = taps() - 1 - j; before <= tokens_before) sum += tap(j) * x_before(before);
    return sum;
  }
  double convolved(const Tensor& x, int64_t row, int64_t first_row) const {
    return convolved(row - first_row, [&](int64_t before) { return at(x, row - before, i); });
  }
};

}  // namespace

void causal_conv_forward(const Tensor& out, const Tensor& x, const Tensor& weight, const Tensor& bias,
                         const Tensor& cu_seqlens) {
  const auto bounds = cu_seqlens.span<int32_t>();
  for (size_t s = 0; s + 1 < bounds.size(); ++s)
    for (int64_t row = bounds[s]; row < bounds[s + 1]; ++row)
      for (int64_t i = 0; i < weight.dim(0); ++i)
        put(out, row, i, silu(Column{weight, bias, i}.convolved(x, row, bounds[s])));
}

void causal_conv_backward(const Tensor& grad_x, const Tensor& grad_weight, const Tensor& grad_bias,
                          const Tensor& grad_out, const Tensor& x, const Tensor& weight, const Tensor& bias,
                          const Tensor& cu_seqlens) {
  const auto bounds = cu_seqlens.span<int32_t>();
  const int64_t taps = weight.dim(1);
  for (size_t s = 0; s + 1 < bounds.size(); ++s) {
    for (int64_t i = 0; i < weight.dim(0); ++i) {
      const Column column{weight, bias, i};
      const int64_t first = bounds[s], end = bounds[s + 1];
      std::vector<double> of_convolved;
      for (int64_t row = first; row < end; ++row) {
        const double c = column.convolved(x, row, first), sigmoid = logistic(c);
        of_convolved.push_back(at(grad_out, row, i) * sigmoid * (1.0 + c * (1.0 - sigmoid)));
      }
      for (int64_t row = first; row < end; ++row) {
        double of_x = 0;
        for (int64_t after = 0; after < taps && row + after < end; ++after)
          of_x += column.tap(taps - 1 - after) * of_convolved[static_cast<size_t>(row + after - first)];
        put(grad_x, row, i, of_x);
        const double own = of_convolved[static_cast<size_t>(row - first)];
        for (int64_t j = 0; grad_weight.defined() && j < taps; ++j)
          if (const int64_t from = row - (taps - 1) + j; from >= first)
            add(grad_weight, i * taps + j, own * at(x, from, i));
        if (grad_bias.defined()) add(grad_bias, i, own);
      }
    }
  }
}

void causal_conv_step(const Tensor& out, const Tensor& states, const Tensor& x, const Tensor& weight,
                      const Tensor& bias, const PagedBatch& batch) {
  const int64_t kept = states.dim(1);
  for (int64_t s = 0; s < batch.sequences(); ++s) {
    const int64_t first = batch.bounds()[s], end = batch.bounds()[s + 1], earlier = batch.context(s) - (end - first);
    if (first == end) continue;
    for (int64_t i = 0; i < weight.dim(0); ++i) {
      const auto place = [&](int64_t j) { return batch.state_slot(s) * states.stride(0) + j * states.stride(1) + i; };
      // The last rows before the step, and then its own.
      std::vector<double> all;
      for (int64_t j = 0; j < kept; ++j)
        all.push_back(kept - j <= earlier ? read(states.dtype(), states.raw(), place(j)) : 0.0);
      for (int64_t row = first; row < end; ++row) all.push_back(at(x, row, i));
      for (int64_t row = first; row < end; ++row) {
        const double c = Column{weight, bias, i}.convolved(earlier + row - first, [&](int64_t before) {
          return all[static_cast<size_t>(kept + row - first - before)];
        });
        put(out, row, i, silu(c));
      }
      for (int64_t j = 0; j < kept; ++j)
        write(states.dtype(), states.raw(), place(j), all[all.size() - static_cast<size_t>(kept - j)]);
    }
  }
}

}  // namespace lathe::kernels::reference
