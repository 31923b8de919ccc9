#include "autograd/ops/token_convolution.h"

#include <optional>

#include "autograd/operation.h"

namespace lathe::autograd {
namespace {

// [C, 1, L] → [C, L].
Tensor taps_of(const Tensor& weight) { return weight.view({weight.dim(0), weight.dim(2)}); }

struct TokenConvolutionOperation final : Operation {
  TokenConvolution kernels;
  Tensor cu_seqlens;
  std::optional<WholeSequences> shared;  // where rows are not those of whole sequences
  TokenConvolutionOperation(const TokenConvolution& k, const SequenceLayout& layout)
      : kernels(k), cu_seqlens(layout.cu_seqlens) {}
  TokenConvolutionOperation(const TokenConvolution& k, const SharedPrefixes& prefixes) : kernels(k), shared(prefixes) {
    cu_seqlens = shared->cu_seqlens();
  }
  std::string_view name() const override { return kernels.name; }

  void forward(Forward& f) {
    const Tensor &x = f.input(0), &weight = f.input(1), &bias = f.input(2);
    const Tensor all = shared ? shared->of(x) : x;
    const Tensor out = Tensor::empty({all.dim(0), weight.dim(0)}, x.dtype(), x.device());
    kernels.forward(out, all, taps_of(weight), bias, cu_seqlens);
    f.save_input("x", 0);
    f.save("weight", weight);
    f.save("bias", bias);
    f.output(shared ? shared->once(out, x.dim(0)) : out);
  }

  void vjp(Saved& saved, std::span<Tensor> grad_outputs, InputGradients& grads) override {
    const int64_t rows = grad_outputs[0].dim(0);
    const Tensor all = shared ? shared->of(saved["x"]) : saved["x"];
    const Tensor grad_out = shared ? shared->of(grad_outputs[0], WholeSequences::Again::zeros) : grad_outputs[0];
    const Tensor grad_weight = grads.needed(1) ? taps_of(grads.accumulator(1)) : Tensor();
    const Tensor grad_bias = grads.needed(2) ? grads.accumulator(2) : Tensor();
    const Tensor grad_x = empty_like(all);
    kernels.backward(grad_x, grad_weight, grad_bias, grad_out, all, taps_of(saved["weight"]),
                     saved.has("bias") ? saved["bias"] : Tensor(), cu_seqlens);
    if (grads.needed(0)) grads.add(0, shared ? shared->summed(grad_x, rows) : grad_x);
  }
};

}  // namespace

Variable token_convolution(const TokenConvolution& kernels, const Variable& x, const Variable& weight,
                           const Variable& bias, const SequenceLayout& layout) {
  return apply(TokenConvolutionOperation(kernels, layout), {x, weight, bias});
}

Variable token_convolution(const TokenConvolution& kernels, const Variable& x, const Variable& weight,
                           const Variable& bias, const SharedPrefixes& shared) {
  return apply(TokenConvolutionOperation(kernels, shared), {x, weight, bias});
}

}  // namespace lathe::autograd
