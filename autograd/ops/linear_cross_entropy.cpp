#include "autograd/ops/linear_cross_entropy.h"

#include <limits>

#include "autograd/node.h"
#include "autograd/operation.h"
#include "kernels/add/add.h"
#include "kernels/copy/copy.h"
#include "kernels/linear_cross_entropy/linear_cross_entropy.h"

namespace lathe::autograd {
namespace {

template <class Real>
double sum_of(const Tensor& per_token, const Tensor& scales) {
  const auto values = per_token.span<Real>();
  double result = 0;
  if (scales.defined()) {
    const auto scale = scales.span<Real>();
    for (size_t t = 0; t < values.size(); ++t) result += static_cast<double>(scale[t]) * values[t];
  } else {
    for (const Real value : values) result += value;
  }
  return result;
}

// Σ scale · loss in f64, in order: one number for the step's report, no place for rounding.
double total(const Tensor& loss, const Tensor& token_scales) {
  const Tensor per_token = kernels::moved(loss, {});
  const Tensor scales = token_scales.defined() ? kernels::moved(token_scales, {}) : Tensor();
  return per_token.dtype() == DType::f64 ? sum_of<double>(per_token, scales) : sum_of<float>(per_token, scales);
}

double element(const Tensor& one) {
  return one.dtype() == DType::f64 ? *one.data<double>() : static_cast<double>(*one.data<float>());
}

struct LinearCrossEntropy final : Operation {
  LinearWeight projection;
  Tensor labels;
  kernels::LabelledRows labelled;
  SequenceLayout layout;
  double scale = 1.0;
  LossValue value = LossValue::summed;
  Tensor token_scales;
  float softcap;

  LinearCrossEntropy(LinearWeight w, Tensor l, SequenceLayout s, float cap)
      : projection(std::move(w)), labels(std::move(l)), layout(std::move(s)), softcap(cap) {}
  std::string_view name() const override { return "linear_cross_entropy"; }

  void run(const kernels::CrossEntropyOutputs& outputs, const Tensor& hidden, double factor) const {
    kernels::linear_cross_entropy(outputs, {.hidden = hidden,
                                            .weight = projection.value(),
                                            .labels = labels,
                                            .cu_seqlens = layout.cu_seqlens,
                                            .scale = factor,
                                            .token_scales = token_scales,
                                            .softcap = softcap,
                                            .labelled = labelled});
  }

  void forward(Forward& f) {
    const Tensor& hidden = f.input(0);
    kernels::CrossEntropyOutputs outputs;
    outputs.loss = Tensor::empty({hidden.dim(0)}, accumulation_dtype(hidden.dtype()), hidden.device());
    outputs.entropy = empty_like(outputs.loss);
    outputs.correct = Tensor::empty({hidden.dim(0)}, DType::u8, hidden.device());
    const bool gradient_now = f.needs(0) && !f.needs(1);
    if (gradient_now) outputs.grad_hidden = empty_like(hidden);
    run(outputs, hidden, scale);

    // Where its gradient is read, too: the backward must not wait for a device.
    Tensor loss = Tensor::empty({1}, outputs.loss.dtype());
    kernels::fill(loss, value == LossValue::summed ? scale * total(outputs.loss, token_scales)
                                                   : std::numeric_limits<double>::quiet_NaN());
    if (gradient_now) {
      f.save("grad_hidden", outputs.grad_hidden);
    } else {
      f.save_input("hidden", 0);
      f.save("weight", f.input(1));
      f.save("labels", labels);
      f.save("token_scales", token_scales);
    }
    f.output(loss);
    f.output(outputs.loss);
    f.output(outputs.entropy);
    f.output(outputs.correct);
  }

  void vjp(Saved& saved, std::span<Tensor> grad_outputs, InputGradients& grads) override {
    const double grad_loss = element(grad_outputs[0]);
    if (saved.has("grad_hidden")) {
      Tensor grad_hidden = saved.take("grad_hidden");
      if (grad_loss != 1.0) kernels::scale(grad_hidden, grad_hidden, grad_loss);
      grads.add(0, std::move(grad_hidden));
      return;
    }
    const Tensor& hidden = saved["hidden"];
    kernels::CrossEntropyOutputs outputs;
    if (grads.needed(0)) outputs.grad_hidden = empty_like(hidden);
    outputs.grad_weight = grads.accumulator(1);
    run(outputs, hidden, scale * grad_loss);
    grads.add(0, std::move(outputs.grad_hidden));
  }
};

CrossEntropyResult record(LinearCrossEntropy operation, const Variable& hidden, const LinearWeight& weight) {
  const Outputs outputs = apply(std::move(operation), {hidden, weight.dense()});
  return {outputs[0], outputs[1].value(), outputs[2].value(), outputs[3].value()};
}

}  // namespace

CrossEntropyResult linear_cross_entropy(const Variable& hidden, const LinearWeight& weight, const Tensor& labels,
                                        const SequenceLayout& layout, double scale, float softcap, LossValue value,
                                        const kernels::LabelledRows& labelled) {
  LinearCrossEntropy operation(weight, labels, layout, softcap);
  operation.labelled = labelled;
  operation.scale = scale;
  operation.value = value;
  return record(std::move(operation), hidden, weight);
}

CrossEntropyResult linear_cross_entropy(const Variable& hidden, const LinearWeight& weight, const Tensor& labels,
                                        const SequenceLayout& layout, const Tensor& token_scales, float softcap) {
  LinearCrossEntropy operation(weight, labels, layout, softcap);
  operation.token_scales = token_scales;
  return record(std::move(operation), hidden, weight);
}

}  // namespace lathe::autograd
