#include "autograd/ops/gated_delta.h"

#include <optional>
#include <string_view>

#include "autograd/operation.h"

namespace lathe::autograd {
namespace {

struct GatedDelta final : Operation {
  kernels::GatedDeltaHeads heads;
  Tensor cu_seqlens;
  std::optional<WholeSequences> shared;  // where rows are not those of whole sequences
  GatedDelta(const kernels::GatedDeltaHeads& h, const SequenceLayout& layout)
      : heads(h), cu_seqlens(layout.cu_seqlens) {}
  GatedDelta(const kernels::GatedDeltaHeads& h, const SharedPrefixes& prefixes) : heads(h), shared(prefixes) {
    cu_seqlens = shared->cu_seqlens();
  }
  std::string_view name() const override { return "gated_delta"; }

  Tensor whole(const Tensor& rows) const { return shared ? shared->of(rows) : rows; }

  void forward(Forward& f) {
    const Tensor& qkv = f.input(0);
    const kernels::GatedDelta inputs{whole(qkv), whole(f.input(1)), whole(f.input(2)), f.input(3), f.input(4), heads};
    const Tensor out = Tensor::empty({inputs.qkv.dim(0), heads.out_columns()}, qkv.dtype(), qkv.device());
    kernels::gated_delta_forward(out, inputs, cu_seqlens);
    f.save_input("qkv", 0);
    f.save_input("a", 1);
    f.save_input("b", 2);
    f.save("A_log", f.input(3));
    f.save("dt_bias", f.input(4));
    f.output(shared ? shared->once(out, qkv.dim(0)) : out);
  }

  void vjp(Saved& saved, std::span<Tensor> grad_outputs, InputGradients& grads) override {
    const int64_t rows = grad_outputs[0].dim(0);
    const kernels::GatedDelta inputs{whole(saved["qkv"]), whole(saved["a"]), whole(saved["b"]),
                                     saved["A_log"],      saved["dt_bias"],  heads};
    const Tensor grad_out = shared ? shared->of(grad_outputs[0], WholeSequences::Again::zeros) : grad_outputs[0];
    const Tensor grad_A_log = grads.needed(3) ? grads.accumulator(3) : Tensor();
    const Tensor grad_dt_bias = grads.needed(4) ? grads.accumulator(4) : Tensor();
    const Tensor grad_rows[] = {empty_like(inputs.qkv), empty_like(inputs.a), empty_like(inputs.b)};
    kernels::gated_delta_backward(grad_rows[0], grad_rows[1], grad_rows[2], grad_A_log, grad_dt_bias, grad_out, inputs,
                                  cu_seqlens);
    for (int i = 0; i < 3; ++i)
      if (grads.needed(i)) grads.add(i, shared ? shared->summed(grad_rows[i], rows) : grad_rows[i]);
  }
};

}  // namespace

Variable gated_delta(const Variable& qkv, const Variable& a, const Variable& b, const Variable& A_log,
                     const Variable& dt_bias, const kernels::GatedDeltaHeads& heads, const SequenceLayout& layout) {
  return apply(GatedDelta(heads, layout), {qkv, a, b, A_log, dt_bias});
}

Variable gated_delta(const Variable& qkv, const Variable& a, const Variable& b, const Variable& A_log,
                     const Variable& dt_bias, const kernels::GatedDeltaHeads& heads, const SharedPrefixes& shared) {
  return apply(GatedDelta(heads, shared), {qkv, a, b, A_log, dt_bias});
}

}  // namespace lathe::autograd
