#include "autograd/ops/shared_prefix_attention.h"

#include "autograd/operation.h"
#include "autograd/ops/attention_sinks.h"
#include "autograd/ops/whole_sequences.h"

namespace lathe::autograd {
namespace {

struct SharedPrefixAttention final : Operation {
  WholeSequences whole;
  kernels::AttentionParams params;
  SharedPrefixAttention(const SharedPrefixes& shared, const kernels::AttentionParams& p) : whole(shared), params(p) {}
  std::string_view name() const override { return "shared_prefix_attention"; }

  void forward(Forward& f) {
    const Tensor &q = f.input(0), &k = f.input(1), &v = f.input(2), &sinks = f.input(3);
    const Tensor all = whole.of(q), out = empty_like(all);
    Tensor lse = lse_of_attention(all, sinks, f.recording());
    kernels::attention_forward({.out = out,
                                .lse = lse,
                                .q = all,
                                .k = whole.of(k),
                                .v = whole.of(v),
                                .cu_seqlens = whole.cu_seqlens(),
                                .params = params});
    lse = add_sinks(out, lse, sinks, f.recording());
    const Tensor once = whole.once(out, q.dim(0));
    f.save_input("q", 0);
    f.save_input("k", 1);
    f.save_input("v", 2);
    f.save("out", once);
    f.save("lse", lse);
    f.save("sinks", sinks);
    f.output(once);
  }

  void vjp(Saved& saved, std::span<Tensor> grad_outputs, InputGradients& grads) override {
    const int64_t rows = grad_outputs[0].dim(0);
    const Tensor q = whole.of(saved["q"]), k = whole.of(saved["k"]), v = whole.of(saved["v"]);
    const Tensor grad_q = empty_like(q), grad_k = empty_like(k), grad_v = empty_like(v);
    const Tensor grad_out = whole.of(grad_outputs[0], WholeSequences::Again::zeros), out = whole.of(saved["out"]);
    kernels::attention_backward({.grad_q = grad_q,
                                 .grad_k = grad_k,
                                 .grad_v = grad_v,
                                 .grad_out = grad_out,
                                 .q = q,
                                 .k = k,
                                 .v = v,
                                 .out = out,
                                 .lse = saved["lse"],
                                 .cu_seqlens = whole.cu_seqlens(),
                                 .params = params});
    grads.add(0, whole.once(grad_q, rows));
    grads.add(1, whole.summed(grad_k, rows));
    grads.add(2, whole.summed(grad_v, rows));
    if (grads.needed(3))
      accumulate_sink_gradient(grads.accumulator(3), grad_out, out, saved["lse"], saved["sinks"], whole.cu_seqlens());
  }
};

}  // namespace

Variable shared_prefix_attention(const Variable& q, const Variable& k, const Variable& v, const SharedPrefixes& shared,
                                 const kernels::AttentionParams& params, const Variable& sinks) {
  return apply(SharedPrefixAttention(shared, params), {q, k, v, sinks});
}

}  // namespace lathe::autograd
