#include "kernels/row_gate/reference.h"

#include <cmath>

#include "kernels/reference/element.h"

namespace lathe::kernels::reference {
namespace {

double at(const Tensor& t, int64_t row, int64_t column) { return read(t.dtype(), t.raw(), row * t.stride(0) + column); }
void put(const Tensor& t, int64_t row, int64_t column, double value) {
  write(t.dtype(), t.raw(), row * t.stride(0) + column, value);
}

double logistic(double z) { return 1.0 / (1.0 + std::exp(-z)); }

}  // namespace

void row_gate_forward(const Tensor& out, const Tensor& gate, const Tensor& x, const Tensor& residual) {
  for (int64_t row = 0; row < x.dim(0); ++row) {
    const double s = logistic(at(gate, row, 0));
    for (int64_t i = 0; i < x.dim(1); ++i) put(out, row, i, at(residual, row, i) + s * at(x, row, i));
  }
}

void row_gate_backward(const Tensor& grad_gate, const Tensor& grad_x, const Tensor& grad_out, const Tensor& gate,
                       const Tensor& x) {
  for (int64_t row = 0; row < x.dim(0); ++row) {
    const double s = logistic(at(gate, row, 0)), rest = logistic(-at(gate, row, 0));
    double sum = 0;
    for (int64_t i = 0; i < x.dim(1); ++i) {
      const double g = at(grad_out, row, i);
      sum += g * at(x, row, i);
      put(grad_x, row, i, s * g);
    }
    put(grad_gate, row, 0, s * rest * sum);
  }
}

}  // namespace lathe::kernels::reference
