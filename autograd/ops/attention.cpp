#include "autograd/ops/attention.h"

#include "autograd/node.h"
#include "autograd/operation.h"

namespace lathe::autograd {
namespace {

struct Attention final : Operation {
  SequenceLayout layout;
  kernels::AttentionParams params;
  Attention(SequenceLayout l, const kernels::AttentionParams& p) : layout(std::move(l)), params(p) {}
  std::string_view name() const override { return "attention"; }

  void forward(Forward& f) {
    const Tensor &q = f.input(0), &k = f.input(1), &v = f.input(2);
    Tensor lse;
    if (f.recording()) lse = Tensor::empty({q.dim(1), q.dim(0)}, accumulation_dtype(q.dtype()), q.device());
    Tensor out = empty_like(q);
    kernels::attention_forward(
        {.out = out, .lse = lse, .q = q, .k = k, .v = v, .cu_seqlens = layout.cu_seqlens, .params = params});
    f.save_input("q", 0);
    f.save_input("k", 1);
    f.save_input("v", 2);
    f.save("out", out);
    f.save("lse", lse);
    f.output(out);
  }

  void vjp(Saved& saved, std::span<Tensor> grad_outputs, InputGradients& grads) override {
    const Tensor &q = saved["q"], &k = saved["k"], &v = saved["v"];
    Tensor grad_q = empty_like(q), grad_k = empty_like(k), grad_v = empty_like(v);
    kernels::attention_backward({.grad_q = grad_q,
                                 .grad_k = grad_k,
                                 .grad_v = grad_v,
                                 .grad_out = grad_outputs[0],
                                 .q = q,
                                 .k = k,
                                 .v = v,
                                 .out = saved["out"],
                                 .lse = saved["lse"],
                                 .cu_seqlens = layout.cu_seqlens,
                                 .params = params});
    grads.add(0, std::move(grad_q));
    grads.add(1, std::move(grad_k));
    grads.add(2, std::move(grad_v));
  }
};

}  // namespace

Variable attention(const Variable& q, const Variable& k, const Variable& v, const SequenceLayout& layout,
                   const kernels::AttentionParams& params) {
  return apply(Attention(layout, params), {q, k, v});
}

}  // namespace lathe::autograd
