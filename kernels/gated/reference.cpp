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

double z(GatedKind kind, double x) {
  if (kind == GatedKind::clamped_silu) return clamped_silu_alpha * x;
  return kind == GatedKind::gelu_tanh ? gelu_scale * (x + 0.044715 * x * x * x) : x;
}
double z_slope(GatedKind kind, double x) {
  if (kind == GatedKind::clamped_silu) return clamped_silu_alpha;
  return kind == GatedKind::gelu_tanh ? gelu_scale * (1.0 + 3.0 * 0.044715 * x * x) : 1.0;
}
// What σ(z) is multiplied by, and its slope.
double factor(GatedKind kind, double x) { return kind == GatedKind::logistic ? 1.0 : x; }
double factor_slope(GatedKind kind) { return kind == GatedKind::logistic ? 0.0 : 1.0; }

// What the formula of gated.h takes for gate and up, and whether their gradients pass.
struct Operands {
  double gate, up;
  bool gate_passes = true, up_passes = true;
};
Operands operands(GatedKind kind, double gate, double up) {
  if (kind != GatedKind::clamped_silu) return {gate, up};
  return {gate > gate_limit ? gate_limit : gate,
          (up > gate_limit    ? gate_limit
           : up < -gate_limit ? -gate_limit
                              : up) +
              1,
          gate <= gate_limit, std::abs(up) <= gate_limit};
}

}  // namespace

void gated_forward(GatedKind kind, const Tensor& out, const Tensor& gate, const Tensor& up) {
  for (int64_t row = 0; row < gate.dim(0); ++row) {
    for (int64_t i = 0; i < gate.dim(1); ++i) {
      const auto [x, u, x_passes, u_passes] = operands(kind, at(gate, row, i), at(up, row, i));
      put(out, row, i, round_to(gate.dtype(), factor(kind, x) / (1.0 + std::exp(-z(kind, x)))) * u);
    }
  }
}

void gated_backward(GatedKind kind, const Tensor& grad_gate, const Tensor& grad_up, const Tensor& grad_out,
                    const Tensor& gate, const Tensor& up) {
  for (int64_t row = 0; row < gate.dim(0); ++row) {
    for (int64_t i = 0; i < gate.dim(1); ++i) {
      const auto [x, u, x_passes, u_passes] = operands(kind, at(gate, row, i), at(up, row, i));
      const double g = at(grad_out, row, i), sigmoid = 1.0 / (1.0 + std::exp(-z(kind, x)));
      const double rest = 1.0 / (1.0 + std::exp(z(kind, x)));
      const double f = factor(kind, x);
      const double slope = sigmoid * (factor_slope(kind) + f * z_slope(kind, x) * rest);
      put(grad_gate, row, i, x_passes ? g * u * slope : 0);
      put(grad_up, row, i, u_passes ? g * (f * sigmoid) : 0);
    }
  }
}

}  // namespace lathe::kernels::reference
