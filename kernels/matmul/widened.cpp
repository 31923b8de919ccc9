#include "kernels/matmul/widened.h"

#include "kernels/copy/copy.h"

namespace lathe::kernels::widened {
namespace {

Tensor wide(const Tensor& tensor) {
  if (!tensor.defined() || tensor.dtype() == DType::f32) return tensor;
  const Tensor result = Tensor::empty(tensor.shape(), DType::f32, {}, MemoryTag::workspace);
  copy(result, tensor);
  return result;
}

class WideWeight {
 public:
  explicit WideWeight(WeightView weight) {
    if (weight.packed) {
      packed_ = weight.packed->as_f32();
    } else {
      dense_ = wide(*weight.dense);
    }
  }
  WeightView view() const { return packed_.defined() ? WeightView(packed_) : WeightView(dense_); }

 private:
  PackedWeight packed_;
  Tensor dense_;
};

// The result in f32: the tensor itself, or one that is rounded into it at the end.
class WideResult {
 public:
  explicit WideResult(const Tensor& result)
      : result_(result),
        wide_(result.dtype() == DType::f32 ? result
                                           : Tensor::empty(result.shape(), DType::f32, {}, MemoryTag::workspace)) {}
  const Tensor& tensor() const { return wide_; }
  void round() const {
    if (result_.dtype() != DType::f32) copy(result_, wide_);
  }

 private:
  Tensor result_, wide_;
};

}  // namespace

void linear_forward(const Tensor& out, const Tensor& x, WeightView weight, const LinearTerms& terms) {
  const WideWeight w(weight);
  const WideResult result(out);
  kernels::linear_forward(result.tensor(), wide(x), w.view(),
                          {.lora_t = wide(terms.lora_t),
                           .lora_b = wide(terms.lora_b),
                           .bias = wide(terms.bias),
                           .residual = wide(terms.residual)});
  result.round();
}

void linear_input_gradient(const Tensor& grad_x, const Tensor& grad_out, WeightView weight, const Tensor& lora_dt,
                           const Tensor& lora_a, bool accumulate) {
  const WideWeight w(weight);
  const WideResult result(grad_x);
  if (accumulate && grad_x.dtype() != DType::f32) copy(result.tensor(), grad_x);
  kernels::linear_input_gradient(result.tensor(), wide(grad_out), w.view(), wide(lora_dt), wide(lora_a), accumulate);
  result.round();
}

void linear_weight_gradient(const Tensor& grad_weight, const Tensor& grad_out, const Tensor& x,
                            const Tensor& cu_seqlens, float scale) {
  kernels::linear_weight_gradient(grad_weight, wide(grad_out), wide(x), cu_seqlens, scale);
}

void matmul(const Tensor& out, const Tensor& a, const Tensor& b, Layout b_layout, float scale) {
  const WideResult result(out);
  kernels::matmul(result.tensor(), wide(a), wide(b), b_layout, scale);
  result.round();
}

}  // namespace lathe::kernels::widened
