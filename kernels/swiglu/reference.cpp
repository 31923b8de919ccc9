#include "kernels/swiglu/reference.h"

#include <cmath>

#include "kernels/reference/element.h"

namespace lathe::kernels::reference {
namespace {

double at(const Tensor& t, int64_t row, int64_t column) { return read(t.dtype(), t.raw(), row * t.stride(0) + column); }
void put(const Tensor& t, int64_t row, int64_t column, double value) {
  write(t.dtype(), t.raw(), row * t.stride(0) + column, value);
}

}  // namespace

void swiglu_forward(const Tensor& out, const Tensor& gate, const Tensor& up) {
  for (int64_t row = 0; row < gate.dim(0); ++row) {
    for (int64_t i = 0; i < gate.dim(1); ++i) {
      const double x = at(gate, row, i);
      put(out, row, i, round_to(gate.dtype(), x / (1.0 + std::exp(-x))) * at(up, row, i));
    }
  }
}

void swiglu_backward(const Tensor& grad_gate, const Tensor& grad_up, const Tensor& grad_out, const Tensor& gate,
                     const Tensor& up) {
  for (int64_t row = 0; row < gate.dim(0); ++row) {
    for (int64_t i = 0; i < gate.dim(1); ++i) {
      const double x = at(gate, row, i), u = at(up, row, i), g = at(grad_out, row, i);
      const double sigmoid = 1.0 / (1.0 + std::exp(-x));
      put(grad_gate, row, i, g * u * (sigmoid * (1.0 + x * (1.0 - sigmoid))));
      put(grad_up, row, i, g * (x * sigmoid));
    }
  }
}

}  // namespace lathe::kernels::reference
