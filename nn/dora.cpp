#include "nn/dora.h"

#include <algorithm>

#include "kernels/copy/copy.h"
#include "kernels/dora_norm/dora_norm.h"
#include "kernels/matmul/matmul.h"

namespace lathe::nn {
namespace {

constexpr int64_t rows_at_a_time = 256;

DType wide(DType dtype) { return dtype == DType::f64 ? DType::f64 : DType::f32; }

// On the weight's device, in a dtype that holds them exactly. (Packed weights of f64 are a file's, which are f32.)
Tensor rows_where_they_are(const kernels::Weight& weight, DType dtype, int64_t first, int64_t count) {
  const bool on_cpu = weight.device().kind == DeviceKind::cpu;
  if (const kernels::PackedWeight* packed = weight.packed()) {
    if (!on_cpu) return packed->dense().slice(0, first, first + count);
    Tensor rows = Tensor::empty({count, weight.columns()}, DType::f32);
    packed->unpack_rows(first, count, rows.data<float>());
    return rows;
  }
  const auto decoded = [&](const auto& codes) {
    Tensor rows = Tensor::empty({count, weight.columns()}, dtype, weight.device());
    codes.dequantize(rows, first);
    return rows;
  };
  if (const kernels::QuantizedWeight* quantized = weight.quantized()) return decoded(*quantized);
  if (const kernels::GgmlWeight* ggml = weight.ggml()) return decoded(*ggml);
  return weight.dense()->slice(0, first, first + count);
}

}  // namespace

Tensor weight_rows(const kernels::Weight& weight, DType dtype, int64_t first, int64_t count) {
  const MemoryTagScope tag(MemoryTag::workspace);
  const Tensor here = kernels::moved(rows_where_they_are(weight, dtype, first, count), {});
  return kernels::cast(here, wide(dtype));
}

DoraNorms::DoraNorms(autograd::LinearWeight weight, DType dtype) : weight_(std::move(weight)) {
  const int64_t rows = weight_.rows();
  const Device device = weight_.value().device();
  squares_ = Tensor::empty({rows}, DType::f64, device, MemoryTag::adapters);
  inverse_ = Tensor::empty({rows}, wide(dtype), device, MemoryTag::adapters);
  const MemoryTagScope tag(MemoryTag::workspace);
  for (int64_t first = 0; first < rows; first += rows_at_a_time) {
    const int64_t count = std::min(rows_at_a_time, rows - first);
    kernels::row_squares(squares_.slice(0, first, first + count),
                         rows_where_they_are(weight_.value(), dtype, first, count));
  }
}

int64_t DoraNorms::bytes(int64_t rows, DType dtype) { return rows * (size_of(DType::f64) + size_of(wide(dtype))); }

void DoraNorms::compute(const Results& results, const Tensor& a, const Tensor& b, float scaling) const {
  const MemoryTagScope tag(MemoryTag::workspace);
  const int64_t r = a.dim(0);
  const DType dtype = wide(a.dtype());
  const Tensor products = Tensor::empty({r, weight_.rows()}, dtype, a.device());
  const Tensor gram = Tensor::empty({r, r}, dtype, a.device());
  kernels::linear_forward(products, a, weight_.value());
  kernels::matmul(gram, a, a, kernels::Layout::transposed);
  kernels::dora_norm({.norm = results.norm,
                      .inverse = results.inverse,
                      .squares = squares_,
                      .products = products,
                      .gram = gram,
                      .b = b,
                      .scaling = scaling});
}

Tensor DoraNorms::norms(const Tensor& a, const Tensor& b, float scaling) const {
  Tensor norm = Tensor::empty({weight_.rows()}, inverse_.dtype(), inverse_.device(), MemoryTag::adapters);
  compute({.norm = norm, .inverse = {}}, a, b, scaling);
  return norm;
}

Tensor DoraNorms::inverse(const Tensor& a, const Tensor& b, float scaling) const {
  const std::lock_guard lock(mutex_);
  const std::array<uint64_t, 2> versions{a.version(), b.version()};
  if (versions_ == versions) return inverse_;
  compute({.norm = {}, .inverse = inverse_}, a, b, scaling);
  inverse_.bump_version();
  versions_ = versions;
  return inverse_;
}

}  // namespace lathe::nn
