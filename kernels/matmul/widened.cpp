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

// A quantised weight was dequantised before (matmul.cpp).
Weight wide(const Weight& weight) {
  if (const PackedWeight* packed = weight.packed()) return packed->as_f32();
  if (const GgmlWeight* ggml = weight.ggml()) return ggml->for_dtype(DType::f32);
  return wide(*weight.dense());
}

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

void linear_forward(const Tensor& out, const Tensor& x, const Weight& weight, const LinearTerms& terms) {
  const WideResult result(out);
  kernels::linear_forward(result.tensor(), wide(x), wide(weight),
                          {.lora_t = wide(terms.lora_t),
                           .lora_b = wide(terms.lora_b),
                           .bias = wide(terms.bias),
                           .residual = wide(terms.residual)});
  result.round();
}

void linear_input_gradient(const LinearInputGradient& call) {
  const WideResult result(call.grad_x);
  if (call.accumulate && call.grad_x.dtype() != DType::f32) copy(result.tensor(), call.grad_x);
  kernels::linear_input_gradient({.grad_x = result.tensor(),
                                  .grad_out = wide(call.grad_out),
                                  .weight = wide(call.weight),
                                  .lora_dt = wide(call.lora_dt),
                                  .lora_a = wide(call.lora_a),
                                  .accumulate = call.accumulate});
  result.round();
}

void linear_weight_gradient(const Tensor& grad_weight, const Tensor& grad_out, const Tensor& x,
                            const Tensor& cu_seqlens, float scale) {
  kernels::linear_weight_gradient(grad_weight, wide(grad_out), wide(x), cu_seqlens, scale);
}

void matmul(const Tensor& out, const Tensor& a, const Weight& b, Layout b_layout, float scale) {
  const WideResult result(out);
  kernels::matmul(result.tensor(), wide(a), wide(b), b_layout, scale);
  result.round();
}

}  // namespace lathe::kernels::widened
