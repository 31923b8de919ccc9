// Output projection and cross entropy as one operation over chunks of tokens: the [tokens × vocabulary] logits never
// exist whole (Liger, cut cross-entropy). Also the log-probability of given tokens, from logits.
#pragma once

#include <algorithm>

#include "core/tensor.h"
#include "kernels/matmul/matmul.h"

namespace lathe::kernels {

inline constexpr int32_t ignored_label = -100;

// Rows whose logits exist at one time on the CPU, and of a sum of grad_weight everywhere.
inline constexpr int64_t cross_entropy_chunk = 128;
// On devices, of a model of that hidden size: so many that the product to grad_hidden, whose sums run along the whole
// vocabulary, has a tile of 128 × 128 for each of a card's 132 multiprocessors; 256 rows of 2048 had 32 tiles.
constexpr int64_t cross_entropy_device_chunk(int64_t hidden_size) {
  return std::clamp<int64_t>((int64_t{1} << 21) / hidden_size / 128 * 128, 256, 1024);
}

// Which rows have labels, where these lie on the device of the hidden states: what is launched then depends on their
// numbers alone, so that a captured step can be replayed with other rows and labels.
struct LabelledRows {
  Tensor rows = {};    // i32 [R] there, ascending in [0, T)
  Tensor bounds = {};  // i32 [S + 1] on the CPU: sequence s has rows[bounds[s]] up to rows[bounds[s + 1] − 1]

  bool defined() const { return rows.defined(); }
};

struct CrossEntropyInputs {
  Tensor hidden;             // [T, H] f32 | bf16 | f16 | (on the CPU) f64, rows contiguous
  Weight weight;             // [V, H] of hidden's dtype
  Tensor labels;             // i32 [T] on the CPU; a row with ignored_label costs nothing. Or those of `labelled`
  Tensor cu_seqlens;         // i32 [S + 1] on the CPU, the bounds of the sequences: read for grad_weight only
  double scale = 1.0;        // of the gradients
  Tensor token_scales;       // f32 (f64) [T] on hidden's device, of each token's gradients; undefined: 1 for all
  Tensor entropy_scales;     // the same, of the gradients of each token's entropy, which are added; undefined: 0
  float softcap = 0.0f;      // above 0: caps the logits as attention does its scores
  float temperature = 1.0f;  // divides the logits, after the cap
  // Where it is defined, hidden's device is not the CPU, and the labels are i32 [R] there: the bits of labels on the
  // CPU. Nobody waits for them to be looked at: one outside [0, V) gives NaN. The bounds are read for grad_weight only.
  LabelledRows labelled = {};
};

// Each may be undefined. s_t = scale · token_scales[t], one product in f32 (f64), and e_t = entropy_scales[t].
struct CrossEntropyOutputs {
  Tensor loss;     // f32 (f64) [T]: −log p(label), 0 where ignored
  Tensor entropy;  // f32 (f64) [T] in nats, 0 where ignored
  Tensor correct;  // u8 [T]: the label is the first maximum of the logits
  Tensor grad_hidden;  // [T, H] of hidden's dtype: s_t · ∂loss_t/∂hidden + e_t · ∂entropy_t/∂hidden, 0 where ignored
  Tensor grad_weight;  // f32 (f64) [V, H] += Σ s_t · ∂loss_t/∂weight + e_t · ∂entropy_t/∂weight, per sequence in order
  Tensor log_sum_sq_probs = {};  // f32 (f64) [T]: log Σ p², 0 where ignored
};

// A label outside [0, V) that is not ignored_label throws ShapeError; a temperature that is not above 0 throws
// ConfigError.
//
// z = c · tanh(logit / c) · (1 / temperature) for a softcap c > 0, else logit · (1 / temperature). Logits are the f32
// chains of linear_forward; a row's log-sum-exp is summed in one order that depends on V alone, and
// −loss = (z_label − max z) − log Σ exp(z − max z).
//
// With p the softmax of z and E its entropy, ∂entropy/∂z = −p · (log p + E) and log Σ p² = log Σ exp(2(z − max z)) −
// 2 log Σ exp(z − max z).
//
// s_t · ∂loss_t/∂logit (+ e_t · ∂entropy_t/∂logit) is computed in f32 and rounded once to hidden's dtype before the two
// gradient products, as logits are in a plain implementation. How scale and token_scales give s_t does not matter:
// token_scales that are all s are the bits of scale = s without them.
//
// For grad_weight a sequence's rows with labels are cut into groups of cross_entropy_chunk from its first on; each
// group is one sum over its rows, ascending, and the groups are added to grad_weight in order. A batch gives the bits
// of its sequences one after another.
void linear_cross_entropy(const CrossEntropyOutputs& outputs, const CrossEntropyInputs& inputs);

// logprobs f32 [T] = logits f32 [T, V] at targets i32 [T] − log-sum-exp of the row: the bits of −loss above, from the
// logits that linear_forward gives in f32. Rows contiguous. Both may be f64 on the CPU. targets lie on the CPU, where
// one outside [0, V) throws ShapeError, or on the device of logits, where it gives NaN.
void token_logprobs(const Tensor& logprobs, const Tensor& logits, const Tensor& targets);

}  // namespace lathe::kernels
