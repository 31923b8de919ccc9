#include "autograd/ops/rms_norm.h"

#include "autograd/node.h"
#include "autograd/operation.h"
#include "kernels/rms_norm/rms_norm.h"

namespace lathe::autograd {
namespace {

Tensor rstd_for(const Tensor& x) { return Tensor::empty({x.dim(0)}, accumulation_dtype(x.dtype()), x.device()); }

Tensor normed_again(Saved& saved, float eps) {
  Tensor out = empty_like(saved["x"]);
  kernels::rms_norm_forward(out, {}, saved["x"], saved["weight"], eps);
  return out;
}

struct RmsNorm final : Operation {
  float eps;
  SequenceLayout layout;
  RmsNorm(float e, SequenceLayout l) : eps(e), layout(std::move(l)) {}
  std::string_view name() const override { return "rms_norm"; }

  void forward(Forward& f) {
    const Tensor &x = f.input(0), &weight = f.input(1);
    const Tensor rstd = f.recording() ? rstd_for(x) : Tensor();
    Tensor out = empty_like(x);
    kernels::rms_norm_forward(out, rstd, x, weight, eps);
    f.save_input("x", 0);
    f.save("weight", weight);
    f.save("rstd", rstd);
    f.output(out);
  }

  void vjp(Saved& saved, std::span<Tensor> grad_outputs, InputGradients& grads) override {
    const Tensor& x = saved["x"];
    const Tensor grad_weight = grads.needed(1) ? grads.accumulator(1) : Tensor();
    // What has already arrived at x by a residual path is added in the same pass.
    const auto [grad_x, accumulate] = grads.needed(0) ? grads.target(0) : InputGradients::Target{empty_like(x), false};
    kernels::rms_norm_backward(grad_x, grad_weight, grad_outputs[0], accumulate ? grad_x : Tensor(), x, saved["weight"],
                               saved["rstd"], layout.bounds_of_rows(x.dim(0)));
  }

  bool can_recompute() const override { return true; }
  Tensor recompute(Saved& saved) override { return normed_again(saved, eps); }
};

// Inputs: x, residual, weight. Outputs: norm(x + residual), x + residual.
struct RmsNormResidual final : Operation {
  float eps;
  SequenceLayout layout;
  RmsNormResidual(float e, SequenceLayout l) : eps(e), layout(std::move(l)) {}
  std::string_view name() const override { return "rms_norm_residual"; }

  void forward(Forward& f) {
    const Tensor &x = f.input(0), &weight = f.input(2);
    const Tensor rstd = f.recording() ? rstd_for(x) : Tensor();
    Tensor out = empty_like(x), sum = empty_like(x);
    kernels::rms_norm_residual_forward(out, sum, rstd, x, f.input(1), weight, eps);
    f.save("x", sum);
    f.save("weight", weight);
    f.save("rstd", rstd);
    f.output(out);
    f.output(sum);
  }

  void vjp(Saved& saved, std::span<Tensor> grad_outputs, InputGradients& grads) override {
    Tensor &grad_out = grad_outputs[0], &grad_sum = grad_outputs[1];
    Tensor grad_x = grad_sum;
    if (grad_out.defined()) {
      const Tensor& x = saved["x"];
      const Tensor grad_weight = grads.needed(2) ? grads.accumulator(2) : Tensor();
      grad_x = {};
      grad_x = grad_sum.defined() ? in_place_or_fresh(grad_sum) : empty_like(x);
      kernels::rms_norm_backward(grad_x, grad_weight, grad_out, grad_sum, x, saved["weight"], saved["rstd"],
                                 layout.bounds_of_rows(x.dim(0)));
    }
    grads.add(0, grad_x);
    grads.add(1, grad_x);
  }

  bool can_recompute() const override { return true; }
  Tensor recompute(Saved& saved) override { return normed_again(saved, eps); }
};

}  // namespace

Variable rms_norm(const Variable& x, const Variable& weight, float eps, const SequenceLayout& layout) {
  return apply(RmsNorm(eps, layout), {x, weight});
}

NormedSum rms_norm_residual(const Variable& x, const Variable& residual, const Variable& weight, float eps,
                            const SequenceLayout& layout) {
  const Outputs outputs = apply(RmsNormResidual(eps, layout), {x, residual, weight});
  return {outputs[0], outputs[1]};
}

}  // namespace lathe::autograd
