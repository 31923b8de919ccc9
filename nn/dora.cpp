#include "nn/dora.h"

#include <algorithm>
#include <cmath>

#include "core/thread_pool.h"
#include "kernels/copy/copy.h"
#include "kernels/matmul/matmul.h"

namespace lathe::nn {
namespace {

constexpr int64_t rows_at_a_time = 256;

DType wide(DType dtype) { return dtype == DType::f64 ? DType::f64 : DType::f32; }

double element(const Tensor& tensor, int64_t i) {
  return tensor.dtype() == DType::f64 ? tensor.data<double>()[i] : static_cast<double>(tensor.data<float>()[i]);
}

// In f32 (f64), on the cpu.
Tensor here(const Tensor& tensor) {
  const Tensor moved = kernels::moved(tensor, {});
  return kernels::cast(moved, wide(moved.dtype()));
}

}  // namespace

Tensor weight_rows(const kernels::Weight& weight, DType dtype, int64_t first, int64_t count) {
  const MemoryTagScope tag(MemoryTag::workspace);
  if (const kernels::PackedWeight* packed = weight.packed()) {
    if (weight.device().kind != DeviceKind::cpu) return here(packed->dense().slice(0, first, first + count));
    if (dtype != DType::f64) {
      Tensor rows = Tensor::empty({count, weight.columns()}, DType::f32);
      packed->unpack_rows(first, count, rows.data<float>());
      return rows;
    }
  }
  if (const kernels::QuantizedWeight* quantized = weight.quantized()) {
    Tensor rows = Tensor::empty({count, weight.columns()}, dtype, weight.device());
    quantized->dequantize(rows, first);
    return here(rows);
  }
  if (const kernels::GgmlWeight* ggml = weight.ggml()) {
    Tensor rows = Tensor::empty({count, weight.columns()}, dtype, weight.device());
    ggml->dequantize(rows, first);
    return here(rows);
  }
  return here(weight.dense()->slice(0, first, first + count));
}

DoraNorms::DoraNorms(autograd::LinearWeight weight, DType dtype) : weight_(std::move(weight)) {
  const int64_t rows = weight_.rows(), columns = weight_.columns();
  squares_.resize(static_cast<size_t>(rows));
  for (int64_t first = 0; first < rows; first += rows_at_a_time) {
    const int64_t count = std::min(rows_at_a_time, rows - first);
    const Tensor block = weight_rows(weight_.value(), dtype, first, count);
    parallel_for(count, 16, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        double sum = 0;
        for (int64_t i = 0; i < columns; ++i) {
          const double value = element(block, row * columns + i);
          sum += value * value;
        }
        squares_[static_cast<size_t>(first + row)] = sum;
      }
    });
  }
}

Tensor DoraNorms::norms(const Tensor& a, const Tensor& b, float scaling) const {
  const MemoryTagScope tag(MemoryTag::workspace);
  const int64_t rows = weight_.rows(), r = a.dim(0);
  const DType dtype = wide(a.dtype());
  Tensor products = Tensor::empty({r, rows}, dtype, a.device()), gram = Tensor::empty({r, r}, dtype, a.device());
  kernels::linear_forward(products, a, weight_.value());
  kernels::matmul(gram, a, a, kernels::Layout::transposed);
  const Tensor aw = here(products), aa = here(gram), factors = here(b);
  const double s = scaling;
  Tensor norms = Tensor::empty({rows}, dtype);
  parallel_for(rows, 64, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      double linear = 0, quadratic = 0;
      for (int64_t j = 0; j < r; ++j) {
        const double bj = element(factors, n * r + j);
        double row = 0;
        for (int64_t k = 0; k < r; ++k) row += element(factors, n * r + k) * element(aa, j * r + k);
        linear += bj * element(aw, j * rows + n);
        quadratic += bj * row;
      }
      const double norm =
          std::sqrt(std::max(0.0, squares_[static_cast<size_t>(n)] + 2 * s * linear + s * s * quadratic));
      if (dtype == DType::f64) {
        norms.data<double>()[n] = norm;
      } else {
        norms.data<float>()[n] = static_cast<float>(norm);
      }
    }
  });
  return norms;
}

Tensor DoraNorms::inverse(const Tensor& a, const Tensor& b, float scaling) const {
  const std::lock_guard lock(mutex_);
  if (inverse_.defined() && a_version_ == a.version() && b_version_ == b.version()) return inverse_;
  Tensor found = norms(a, b, scaling);
  const auto invert = [](auto values) {
    for (auto& value : values) value = value > 0 ? 1 / value : 0;
  };
  if (found.dtype() == DType::f64) {
    invert(found.span<double>());
  } else {
    invert(found.span<float>());
  }
  // In the memory of the last: what a graph has captured must not move.
  if (inverse_.defined()) {
    kernels::copy(inverse_, found);
    inverse_.bump_version();
  } else {
    inverse_ = kernels::moved(found, weight_.value().device(), MemoryTag::adapters);
  }
  a_version_ = a.version();
  b_version_ = b.version();
  return inverse_;
}

}  // namespace lathe::nn
