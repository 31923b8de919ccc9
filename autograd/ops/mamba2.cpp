#include "autograd/ops/mamba2.h"

#include <optional>
#include <string_view>

#include "autograd/operation.h"

namespace lathe::autograd {
namespace {

struct Mamba2 final : Operation {
  Mamba2Shape shape;
  Tensor cu_seqlens;
  std::optional<WholeSequences> shared;  // where rows are not those of whole sequences
  Mamba2(const Mamba2Shape& s, const SequenceLayout& layout) : shape(s), cu_seqlens(layout.cu_seqlens) {}
  Mamba2(const Mamba2Shape& s, const SharedPrefixes& prefixes) : shape(s), shared(prefixes) {
    cu_seqlens = shared->cu_seqlens();
  }
  std::string_view name() const override { return "mamba2"; }

  Tensor whole(const Tensor& rows) const { return shared ? shared->of(rows) : rows; }
  kernels::Mamba2 inputs_of(const Tensor& xbc, const Tensor& dt, const Tensor& A_log, const Tensor& D,
                            const Tensor& dt_bias) const {
    return {whole(xbc), whole(dt), A_log, D, dt_bias, shape.heads, shape.dt_min, shape.dt_max};
  }

  void forward(Forward& f) {
    const Tensor& xbc = f.input(0);
    const kernels::Mamba2 inputs = inputs_of(xbc, f.input(1), f.input(2), f.input(3), f.input(4));
    const Tensor out = Tensor::empty({inputs.xbc.dim(0), shape.heads.out_columns()}, xbc.dtype(), xbc.device());
    kernels::mamba2_forward(out, inputs, cu_seqlens);
    f.save_input("xbc", 0);
    f.save_input("dt", 1);
    f.save("A_log", f.input(2));
    f.save("D", f.input(3));
    f.save("dt_bias", f.input(4));
    f.output(shared ? shared->once(out, xbc.dim(0)) : out);
  }

  void vjp(Saved& saved, std::span<Tensor> grad_outputs, InputGradients& grads) override {
    const int64_t rows = grad_outputs[0].dim(0);
    const kernels::Mamba2 inputs = inputs_of(saved["xbc"], saved["dt"], saved["A_log"], saved["D"], saved["dt_bias"]);
    const Tensor grad_out = shared ? shared->of(grad_outputs[0], WholeSequences::Again::zeros) : grad_outputs[0];
    const auto of_weight = [&](int input) { return grads.needed(input) ? grads.accumulator(input) : Tensor(); };
    const Tensor grad_A_log = of_weight(2), grad_D = of_weight(3), grad_dt_bias = of_weight(4);
    const Tensor grad_rows[] = {empty_like(inputs.xbc), empty_like(inputs.dt)};
    kernels::mamba2_backward(grad_rows[0], grad_rows[1], grad_A_log, grad_D, grad_dt_bias, grad_out, inputs,
                             cu_seqlens);
    for (int i = 0; i < 2; ++i)
      if (grads.needed(i)) grads.add(i, shared ? shared->summed(grad_rows[i], rows) : grad_rows[i]);
  }
};

}  // namespace

Variable mamba2(const Variable& xbc, const Variable& dt, const Mamba2Weights& weights, const Mamba2Shape& shape,
                const SequenceLayout& layout) {
  return apply(Mamba2(shape, layout), {xbc, dt, weights.A_log, weights.D, weights.dt_bias});
}

Variable mamba2(const Variable& xbc, const Variable& dt, const Mamba2Weights& weights, const Mamba2Shape& shape,
                const SharedPrefixes& shared) {
  return apply(Mamba2(shape, shared), {xbc, dt, weights.A_log, weights.D, weights.dt_bias});
}

}  // namespace lathe::autograd
