// Output projection and cross entropy as one operation (kernels/linear_cross_entropy/linear_cross_entropy.h):
// the logits never exist whole. With a frozen projection the gradient of hidden is made in the forward, while
// a chunk's logits are there, and saved ([T, H]). A trainable projection's gradient would be another [V, H]
// to keep, so there the backward computes the logits again and adds straight into the leaf's gradient.
#pragma once

#include "autograd/ops/linear.h"
#include "kernels/linear_cross_entropy/linear_cross_entropy.h"

namespace lathe::autograd {

// The value of the loss is a sum over tokens, for which the host waits. Left out it is NaN, and the loss is the root of
// a backward all the same.
enum class LossValue : uint8_t { summed, left_out };

struct CrossEntropyResult {
  Variable loss;  // f32 (f64) [1] on the CPU: scale · Σ over the labelled tokens of −log p(label)
  // For metrics, without gradients; [T], zero where the label is ignored.
  Tensor token_loss;  // f32 (f64)
  Tensor entropy;     // f32 (f64), nats
  Tensor correct;     // u8: the label is the most probable token
};

// hidden [T, H], weight [V, H], labels i32 [T] already shifted (the label of a token is what follows it),
// kernels::ignored_label where there is nothing to learn. softcap > 0 caps the logits. `labelled` with its labels is
// what kernels::CrossEntropyInputs has.
CrossEntropyResult linear_cross_entropy(const Variable& hidden, const LinearWeight& weight, const Tensor& labels,
                                        const SequenceLayout& layout, double scale, float softcap = 0.0f,
                                        LossValue value = LossValue::summed,
                                        const kernels::LabelledRows& labelled = {});

// A scale for each token, f32 (f64) [T] on hidden's device, through which no gradient flows:
// loss = Σ token_scales[t] · −log p(label). Where all are equal the gradients are the number's, bit for bit.
CrossEntropyResult linear_cross_entropy(const Variable& hidden, const LinearWeight& weight, const Tensor& labels,
                                        const SequenceLayout& layout, const Tensor& token_scales, float softcap = 0.0f);

}  // namespace lathe::autograd
