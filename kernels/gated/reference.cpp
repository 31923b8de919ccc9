#include "kernels/gated/reference.h"

#include <cmath>
#include <numbers>

#include "kernels/reference/element.h"

namespace lathe::kernels::reference {
namespace {

double at(const Tensor& t, int64_t row, int64_t column) { return read(t.dtype(), t.raw(), row * t.stride(0) + column); }
void put(const Tensor& t, int64_t row, int64_t column, double value) {
  write(t.dtype(), t.raw(), row * t.stride(0) + column, value);
}

const double gelu_scale = std::sqrt(8.0 / std::numbers::pi);

double z(Activation activation, double x) {
  return activation == Activation::silu ? x : gelu_scale * (x + 0.044715 * x * x * x);
}
double z_slope(Activation activation, double x) {
  return activation == Activation::silu ? 1.0 : gelu_scale * (1.0 + 3.0 * 0.044715 * x * x);
}

}  // namespace

void gated_forward(Activation activation, const Tensor& out, const Tensor& gate, const Tensor& up) {
  for (int64_t row = 0; row < gate.dim(0); ++row) {
    for (int64_t i = 0; i < gate.dim(1); ++i) {
      const double x = at(gate, row, i);
      put(out, row, i, round_to(gate.dtype(), x / (1.0 + std::exp(-z(activation, x)))) * at(up, row, i));
    }
  }
}

void gated_backward(Activation activation, const Tensor& grad_gate, const Tensor& grad_up, const Tensor& grad_out,
                    const Tensor& gate, const Tensor& up) {
  for (int64_t row = 0; row < gate.dim(0); ++row) {
    for (int64_t i = 0; i < gate.dim(1); ++i) {
      const double x = at(gate, row, i), u = at(up, row, i), g = at(grad_out, row, i);
      const double sigmoid = 1.0 / (1.0 + std::exp(-z(activation, x)));
      const double slope = sigmoid * (1.0 + x * z_slope(activation, x) * (1.0 - sigmoid));
      put(grad_gate, row, i, g * u * slope);
      put(grad_up, row, i, g * (x * sigmoid));
    }
  }
}

}  // namespace lathe::kernels::reference
