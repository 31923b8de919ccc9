#include "kernels/matmul/reference.h"

#include "core/error.h"
#include "core/thread_pool.h"
#include "kernels/matmul/weights/panels.h"

namespace lathe::kernels::reference {
namespace {

// Elements of a matrix of any floating dtype, wherever they lie. A row step of [i, j] is column_stride for a transposed
// view, a panel's width inside panels.
class Elements {
 public:
  explicit Elements(const Tensor& tensor) : data_(tensor.defined() ? tensor.raw() : nullptr) {
    if (!tensor.defined()) return;
    dtype_ = tensor.dtype();
    stride0_ = tensor.rank() == 2 ? tensor.stride(0) : 0;
    stride1_ = tensor.stride(-1);
  }
  // A quantised weight was dequantised before (matmul.cpp).
  explicit Elements(const Weight& weight) : Elements(weight.packed() ? weight.packed()->panels() : *weight.dense()) {
    if (!weight.packed()) return;
    panel_rows_ = gemm::panel_width;
    pairs_ = dtype_ == DType::bf16;
  }

  double operator()(int64_t i, int64_t j) const {
    const int64_t at = index(i, j);
    switch (dtype_) {
      case DType::f64: return static_cast<const double*>(data_)[at];
      case DType::f32: return static_cast<const float*>(data_)[at];
      default: return static_cast<double>(static_cast<float>(static_cast<const bf16*>(data_)[at]));
    }
  }
  void set(int64_t i, int64_t j, double value) const {
    const int64_t at = index(i, j);
    switch (dtype_) {
      case DType::f64: static_cast<double*>(data_)[at] = value; break;
      case DType::f32: static_cast<float*>(data_)[at] = static_cast<float>(value); break;
      default: static_cast<bf16*>(data_)[at] = bf16(static_cast<float>(value));
    }
  }

 private:
  int64_t index(int64_t i, int64_t j) const {
    if (panel_rows_ == 0) return i * stride0_ + j * stride1_;
    const int64_t panel = i / panel_rows_ * stride0_, lane = i % panel_rows_;
    return pairs_ ? panel + (j / 2 * panel_rows_ + lane) * 2 + j % 2 : panel + j * panel_rows_ + lane;
  }

  void* data_;
  DType dtype_ = DType::f64;
  int64_t stride0_ = 0, stride1_ = 0, panel_rows_ = 0;
  bool pairs_ = false;
};

template <class Body>
void for_each_row(int64_t rows, const Body& body) {
  parallel_for(rows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) body(row);
  });
}

}  // namespace

void linear_forward(const Tensor& out, const Tensor& x, const Weight& weight, const LinearTerms& terms) {
  const Elements o(out), in(x), w(weight), t(terms.lora_t), b(terms.lora_b), bias(terms.bias), residual(terms.residual);
  const int64_t rank = terms.lora_t.defined() ? terms.lora_t.dim(1) : 0;
  for_each_row(out.dim(0), [&](int64_t m) {
    for (int64_t n = 0; n < out.dim(1); ++n) {
      double sum = 0;
      for (int64_t k = 0; k < x.dim(1); ++k) sum += in(m, k) * w(n, k);
      for (int64_t r = 0; r < rank; ++r) sum += t(m, r) * b(n, r);
      if (terms.bias.defined()) sum += bias(0, n);
      if (terms.residual.defined()) sum += residual(m, n);
      o.set(m, n, sum);
    }
  });
}

void linear_input_gradient(const LinearInputGradient& call) {
  const Elements gx(call.grad_x), go(call.grad_out), w(call.weight), dt(call.lora_dt), a(call.lora_a);
  const int64_t rank = call.lora_dt.defined() ? call.lora_dt.dim(1) : 0;
  for_each_row(call.grad_x.dim(0), [&](int64_t m) {
    for (int64_t k = 0; k < call.grad_x.dim(1); ++k) {
      double sum = 0;
      for (int64_t n = 0; n < call.grad_out.dim(1); ++n) sum += go(m, n) * w(n, k);
      for (int64_t r = 0; r < rank; ++r) sum += dt(m, r) * a(r, k);
      gx.set(m, k, call.accumulate ? sum + gx(m, k) : sum);
    }
  });
}

void linear_weight_gradient(const Tensor& grad_weight, const Tensor& grad_out, const Tensor& x,
                            const Tensor& cu_seqlens, float scale) {
  const Elements gw(grad_weight), go(grad_out), in(x);
  const int32_t* bounds = cu_seqlens.data<int32_t>();
  for_each_row(grad_weight.dim(0), [&](int64_t n) {
    for (int64_t k = 0; k < grad_weight.dim(1); ++k) {
      double total = gw(n, k);
      for (int64_t s = 0; s + 1 < cu_seqlens.numel(); ++s) {
        double sum = 0;
        for (int64_t t = bounds[s]; t < bounds[s + 1]; ++t) sum += go(t, n) * in(t, k);
        total += scale * sum;
      }
      gw.set(n, k, total);
    }
  });
}

void matmul(const Tensor& out, const Tensor& a, const Weight& b, Layout b_layout, float scale) {
  const Elements o(out), left(a), right(b);
  for_each_row(out.dim(0), [&](int64_t m) {
    for (int64_t n = 0; n < out.dim(1); ++n) {
      double sum = 0;
      for (int64_t k = 0; k < a.dim(1); ++k)
        sum += left(m, k) * (b_layout == Layout::transposed ? right(n, k) : right(k, n));
      o.set(m, n, scale * sum);
    }
  });
}

}  // namespace lathe::kernels::reference
