#include "autograd/ops/short_conv.h"

#include <optional>

#include "autograd/operation.h"
#include "kernels/short_conv/short_conv.h"

namespace lathe::autograd {
namespace {

// [H, 1, L] → [H, L].
Tensor taps_of(const Tensor& weight) { return weight.view({weight.dim(0), weight.dim(2)}); }

struct ShortConv final : Operation {
  Tensor cu_seqlens;
  std::optional<WholeSequences> shared;  // where rows are not those of whole sequences
  explicit ShortConv(const SequenceLayout& layout) : cu_seqlens(layout.cu_seqlens) {}
  explicit ShortConv(const SharedPrefixes& prefixes) : shared(prefixes) { cu_seqlens = shared->cu_seqlens(); }
  std::string_view name() const override { return "short_conv"; }

  void forward(Forward& f) {
    const Tensor &bcx = f.input(0), &weight = f.input(1), &bias = f.input(2);
    const Tensor all = shared ? shared->of(bcx) : bcx;
    const Tensor out = Tensor::empty({all.dim(0), weight.dim(0)}, bcx.dtype(), bcx.device());
    kernels::short_conv_forward(out, all, taps_of(weight), bias, cu_seqlens);
    f.save_input("bcx", 0);
    f.save("weight", weight);
    f.save("bias", bias);
    f.output(shared ? shared->once(out, bcx.dim(0)) : out);
  }

  void vjp(Saved& saved, std::span<Tensor> grad_outputs, InputGradients& grads) override {
    const int64_t rows = grad_outputs[0].dim(0);
    const Tensor all = shared ? shared->of(saved["bcx"]) : saved["bcx"];
    const Tensor grad_out = shared ? shared->of(grad_outputs[0], WholeSequences::Again::zeros) : grad_outputs[0];
    const Tensor grad_weight = grads.needed(1) ? taps_of(grads.accumulator(1)) : Tensor();
    const Tensor grad_bias = grads.needed(2) ? grads.accumulator(2) : Tensor();
    const Tensor grad_bcx = empty_like(all);
    kernels::short_conv_backward(grad_bcx, grad_weight, grad_bias, grad_out, all, taps_of(saved["weight"]),
                                 saved.has("bias") ? saved["bias"] : Tensor(), cu_seqlens);
    if (grads.needed(0)) grads.add(0, shared ? shared->summed(grad_bcx, rows) : grad_bcx);
  }
};

}  // namespace

Variable short_conv(const Variable& bcx, const Variable& weight, const Variable& bias, const SequenceLayout& layout) {
  return apply(ShortConv(layout), {bcx, weight, bias});
}

Variable short_conv(const Variable& bcx, const Variable& weight, const Variable& bias, const SharedPrefixes& shared) {
  return apply(ShortConv(shared), {bcx, weight, bias});
}

}  // namespace lathe::autograd
