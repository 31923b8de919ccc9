#include "autograd/ops/token_logprobs.h"

#include "autograd/node.h"
#include "autograd/operation.h"
#include "kernels/add/add.h"
#include "kernels/linear_cross_entropy/linear_cross_entropy.h"

namespace lathe::autograd {
namespace {

enum Input : int { hidden, weight };

struct TokenLogprobs final : Operation {
  LinearWeight projection;
  Tensor targets;
  kernels::LabelledRows labelled;
  SequenceLayout layout;
  float softcap, temperature;
  Tensor *entropy, *correct, *log_sum_sq_probs;  // of the caller, for the time of the forward
  bool entropy_has_gradient = false;

  TokenLogprobs(LinearWeight w, Tensor t, kernels::LabelledRows r, SequenceLayout s, float cap, float divisor,
                Tensor* e = nullptr, Tensor* c = nullptr, Tensor* l = nullptr)
      : projection(std::move(w)),
        targets(std::move(t)),
        labelled(std::move(r)),
        layout(std::move(s)),
        softcap(cap),
        temperature(divisor),
        entropy(e),
        correct(c),
        log_sum_sq_probs(l) {}
  std::string_view name() const override { return "token_logprobs"; }

  kernels::CrossEntropyInputs inputs(const Tensor& of_hidden) const {
    return {.hidden = of_hidden,
            .weight = projection.value(),
            .labels = targets,
            .cu_seqlens = layout.cu_seqlens,
            .softcap = softcap,
            .temperature = temperature,
            .labelled = labelled};
  }

  void forward(Forward& f) {
    const Tensor& in = f.input(hidden);
    const DType dtype = accumulation_dtype(in.dtype());
    const Tensor loss = Tensor::empty({in.dim(0)}, dtype, in.device());
    kernels::CrossEntropyOutputs outputs{.loss = loss};
    if (entropy != nullptr) outputs.entropy = *entropy = Tensor::empty({in.dim(0)}, dtype, in.device());
    if (entropy_has_gradient) outputs.entropy = Tensor::empty({in.dim(0)}, dtype, in.device());
    if (correct != nullptr) outputs.correct = *correct = Tensor::empty({in.dim(0)}, DType::u8, in.device());
    if (log_sum_sq_probs != nullptr)
      outputs.log_sum_sq_probs = *log_sum_sq_probs = Tensor::empty({in.dim(0)}, dtype, in.device());
    entropy = correct = log_sum_sq_probs = nullptr;
    kernels::linear_cross_entropy(outputs, inputs(in));
    Tensor logprobs = Tensor::zeros({in.dim(0)}, dtype, in.device());
    kernels::add(logprobs, logprobs, loss, -1.0);  // 0 − loss: an ignored token's is 0, where −loss is −0

    f.save_input("hidden", hidden);
    // So that a change of them is noticed.
    f.save("weight", projection.versioned());
    f.save("targets", targets);
    f.output(logprobs);
    if (entropy_has_gradient) f.output(outputs.entropy);
  }

  void vjp(Saved& saved, std::span<Tensor> grad_outputs, InputGradients& grads) override {
    kernels::CrossEntropyInputs scaled = inputs(saved["hidden"]);
    scaled.scale = -1.0;  // log p = −loss
    scaled.token_scales = grad_outputs[0];
    if (grad_outputs.size() > 1) scaled.entropy_scales = grad_outputs[1];
    if (!scaled.token_scales.defined())  // only the entropies have gradients
      scaled.token_scales = Tensor::zeros({scaled.hidden.dim(0)}, grad_outputs[1].dtype(), scaled.hidden.device());
    kernels::CrossEntropyOutputs outputs;
    if (grads.needed(hidden)) outputs.grad_hidden = empty_like(scaled.hidden);
    if (grads.needed(weight)) outputs.grad_weight = grads.accumulator(weight);
    kernels::linear_cross_entropy(outputs, scaled);
    grads.add(hidden, std::move(outputs.grad_hidden));
  }
};

}  // namespace

Variable token_logprobs(const Variable& hidden, const LinearWeight& weight, const Tensor& targets,
                        const SequenceLayout& layout, float softcap, float temperature, Tensor* entropy,
                        Tensor* correct, Tensor* log_sum_sq_probs, const kernels::LabelledRows& labelled) {
  return apply(
      TokenLogprobs(weight, targets, labelled, layout, softcap, temperature, entropy, correct, log_sum_sq_probs),
      {hidden, weight.dense()});
}

TokenDistributions token_distributions(const Variable& hidden, const LinearWeight& weight, const Tensor& targets,
                                       const SequenceLayout& layout, float softcap, float temperature,
                                       const kernels::LabelledRows& labelled) {
  TokenLogprobs operation(weight, targets, labelled, layout, softcap, temperature);
  operation.entropy_has_gradient = true;
  const Outputs outputs = apply(std::move(operation), {hidden, weight.dense()});
  return {outputs[0], outputs[1]};
}

}  // namespace lathe::autograd
