#include "autograd/ops/attention.h"

#include "autograd/operation.h"
#include "autograd/ops/attention_sinks.h"

namespace lathe::autograd {
namespace {

struct Attention final : Operation {
  SequenceLayout layout;
  kernels::AttentionParams params;
  Attention(SequenceLayout l, const kernels::AttentionParams& p) : layout(std::move(l)), params(p) {}
  std::string_view name() const override { return "attention"; }

  void forward(Forward& f) {
    const Tensor &q = f.input(0), &k = f.input(1), &v = f.input(2), &sinks = f.input(3);
    Tensor lse = lse_of_attention(q, sinks, f.recording());
    Tensor out = empty_like(q);
    kernels::attention_forward(
        {.out = out, .lse = lse, .q = q, .k = k, .v = v, .cu_seqlens = layout.cu_seqlens, .params = params});
    lse = add_sinks(out, lse, sinks, f.recording());
    f.save_input("q", 0);
    f.save_input("k", 1);
    f.save_input("v", 2);
    f.save("out", out);
    f.save("lse", lse);
    f.save("sinks", sinks);
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
    if (grads.needed(3))
      accumulate_sink_gradient(grads.accumulator(3), grad_outputs[0], saved["out"], saved["lse"], saved["sinks"],
                               layout.cu_seqlens);
  }
};

}  // namespace

Variable attention(const Variable& q, const Variable& k, const Variable& v, const SequenceLayout& layout,
                   const kernels::AttentionParams& params, const Variable& sinks) {
  return apply(Attention(layout, params), {q, k, v, sinks});
}

}  // namespace lathe::autograd
