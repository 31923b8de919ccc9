// Log-probabilities of given tokens, with a gradient for each: what preference optimisation and policy gradients stand
// on. Output projection and log-softmax are one operation (kernels/linear_cross_entropy/linear_cross_entropy.h): the
// logits never exist whole. The gradients of the tokens are known only in the backward, which computes the logits
// again: nothing of [T, V] is kept.
#pragma once

#include "autograd/ops/linear.h"
#include "kernels/linear_cross_entropy/linear_cross_entropy.h"

namespace lathe::autograd {

// hidden [T, H], weight [V, H], targets i32 [T] on the CPU, already shifted (a token's target is what follows it) → f32
// (f64) [T]: log p(target), the bits of kernels::token_logprobs of these logits; 0, through which no gradient flows,
// where the target is kernels::ignored_label. softcap > 0 caps the logits; then the temperature divides them.
//
// With g the gradient of the output, that of hidden (and of a weight that trains) is linear_cross_entropy's for the
// token scales −g, bit for bit.
// `entropy`, where it is not null, becomes f32 (f64) [T]: of the distribution that the target is drawn from, in nats; 0
// where the target is ignored. `correct`, where it is not null, becomes u8 [T]: the target is the likeliest token.
// `log_sum_sq_probs`, where it is not null, becomes f32 (f64) [T]: log Σ p² of that distribution.
// `labelled` with its targets is what kernels::CrossEntropyInputs has with its labels.
Variable token_logprobs(const Variable& hidden, const LinearWeight& weight, const Tensor& targets,
                        const SequenceLayout& layout, float softcap = 0.0f, float temperature = 1.0f,
                        Tensor* entropy = nullptr, Tensor* correct = nullptr, Tensor* log_sum_sq_probs = nullptr,
                        const kernels::LabelledRows& labelled = {});

// The same log-probabilities with their distributions' entropies, both with gradients. autograd::backward takes several
// roots.
struct TokenDistributions {
  Variable logprobs, entropies;  // [T] each
};
TokenDistributions token_distributions(const Variable& hidden, const LinearWeight& weight, const Tensor& targets,
                                       const SequenceLayout& layout, float softcap = 0.0f, float temperature = 1.0f,
                                       const kernels::LabelledRows& labelled = {});

}  // namespace lathe::autograd
