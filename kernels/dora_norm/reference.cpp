#include "kernels/dora_norm/reference.h"

#include <algorithm>
#include <cmath>

#include "kernels/reference/element.h"

namespace lathe::kernels::reference {
namespace {

double at(const Tensor& tensor, int64_t i) { return read(tensor.dtype(), tensor.raw(), i); }

}  // namespace

void row_squares(const Tensor& squares, const Tensor& rows) {
  for (int64_t n = 0; n < rows.dim(0); ++n) {
    double sum = 0;
    for (int64_t i = 0; i < rows.dim(1); ++i) {
      const double value = at(rows, n * rows.stride(0) + i);
      sum += value * value;
    }
    squares.data<double>()[n] = sum;
  }
}

void dora_norm(const DoraNorm& call) {
  const int64_t rows = call.b.dim(0), r = call.b.dim(1);
  const double s = call.scaling;
  for (int64_t n = 0; n < rows; ++n) {
    double linear = 0, quadratic = 0;
    for (int64_t j = 0; j < r; ++j) {
      double row = 0;
      for (int64_t k = 0; k < r; ++k) row += at(call.b, n * r + k) * at(call.gram, j * r + k);
      linear += at(call.b, n * r + j) * at(call.products, j * rows + n);
      quadratic += at(call.b, n * r + j) * row;
    }
    const double square = call.squares.data<double>()[n] + 2 * s * linear + s * s * quadratic;
    const double norm = round_to(call.products.dtype(), std::sqrt(std::max(0.0, square)));
    if (call.norm.defined()) write(call.norm.dtype(), call.norm.raw(), n, norm);
    if (call.inverse.defined()) write(call.inverse.dtype(), call.inverse.raw(), n, norm > 0 ? 1 / norm : 0);
  }
}

}  // namespace lathe::kernels::reference
