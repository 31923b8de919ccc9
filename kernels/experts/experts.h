// What a mixture of experts needs beside its linears (Shazeer et al. 2017, Mixtral, Qwen 3): the choice of experts, and
// rows that go to them and come back. A token's row in each of its experts is that of a slot; the slots of an expert
// lie one after another, so that its linears are products over consecutive rows. Nothing here depends on the other
// tokens.
//
// T tokens, E experts, k of them for each token, R = T · k slots. logits [T, E], rows [R, H], out [T, H]: f32 | bf16 |
// f16 (f64 on the cpu), one dtype, rows contiguous. weights f32 (f64 for f64) [T, k], chosen and slots i32 [T, k]:
// contiguous, on the device of the others.
#pragma once

#include <utility>

#include "core/tensor.h"

namespace lathe::kernels {

// E is at most this.
inline constexpr int64_t most_experts = 1024;

// p is softmax(logits) over the experts, or σ of each logit by itself (LFM2-MoE). Whether a token's weights are divided
// by their sum.
enum class ExpertWeights { probabilities, normalised, sigmoids, normalised_sigmoids };

// What goes with σ alone: a bias that is added to p for the choice, and is in no weight, and a factor of the weights.
struct ExpertRule {
  ExpertRule(ExpertWeights w, Tensor b = {}, float s = 1) : weights(w), bias(std::move(b)), scale(s) {}  // NOLINT
  ExpertWeights weights;
  Tensor bias;  // f32 (f64 for f64) [E], contiguous, on the device of the logits; undefined: none
  float scale;
  bool has_sigmoids() const { return weights >= ExpertWeights::sigmoids; }
};
// What the sum that normalised_sigmoids are divided by has added.
inline constexpr float sigmoid_sum_offset = 1e-6f;

// chosen[t] are the k whose p (+ bias) are largest, the largest first, and of equal ones the one of the lower number;
// weights[t, i] = p[chosen[t, i]], or its share of their sum, times `scale`. Of a token with a NaN the weights are NaN.
// k ≤ E.
void choose_experts(const Tensor& weights, const Tensor& chosen, const Tensor& logits, const ExpertRule& rule);

// On a device (cuda, simt): choose_experts, and where the tokens' rows lie in the order of the experts, which the host
// does not learn. What goes to one expert is cut into groups of `rows` slots, the last of what is left: G places for as
// many as there may be, ascending by expert, of which those past the last that there are have no slots. Of a token with
// NaNs an expert may be chosen twice, and has one slot for it. One launch for a few tokens in groups of as many rows,
// else two or three.
inline constexpr int64_t few_grouped_tokens = 16, few_grouped_choices = 32;  // T and k of these are at most so many
struct ExpertGroups {
  Tensor slots;    // i32 [T, k]
  Tensor tokens;   // i32 [R]: whose row each slot holds; within an expert they ascend
  Tensor experts;  // i32 [G]
  Tensor bounds;   // i32 [G + 1]: group g has the slots [bounds[g], bounds[g + 1])
  Tensor begins;   // i32 [E + 1]: expert e has the groups [begins[e], begins[e + 1]); undefined: not wanted
  int64_t rows;
  Tensor chosen = {};  // i32 [T, k], as choose_experts says it; undefined: not wanted
  // With `begins` where groups have more than few_grouped_tokens rows.
  static ExpertGroups empty(int64_t tokens, int64_t experts, int64_t per_token, Device device,
                            int64_t rows = few_grouped_tokens);
};
void choose_and_group_experts(const Tensor& weights, const ExpertGroups& groups, const Tensor& logits,
                              const ExpertRule& rule);

// The gradient of the logits; what was chosen is taken as it is. With p as above and g = grad_weights:
//   probabilities  grad_logits[e] = p[e] · (g of e, or 0 where it is not chosen − Σ g · weights)
//   normalised     grad_logits[e] = weight of e · (g of e − Σ g · weights) where it is chosen, else 0
//   sigmoids       grad_logits[e] = weight of e · (1 − p[e]) · g of e where it is chosen, else 0
//   normalised_sigmoids  the same with g of e − Σ g · weights / scale
void choose_experts_backward(const Tensor& grad_logits, const Tensor& grad_weights, const Tensor& logits,
                             const Tensor& weights, const Tensor& chosen, const ExpertRule& rule);

// out[t] = Σ over i ascending of weights[t, i] · rows[slots[t, i]], in f32, rounded once. Without weights (undefined)
// they are ones. With a residual [T, H], which out may be, it is added to what was rounded: the bits of add() after it.
void combine_experts(const Tensor& out, const Tensor& rows, const Tensor& slots, const Tensor& weights,
                     const Tensor& residual = {});

// grad_rows[slots[t, i]] = weights[t, i] · grad_out[t]; grad_weights[t, i] = Σ over h of grad_out[t, h] ·
// rows[slots[t, i], h]. Each may be undefined, grad_rows may be rows; every slot belongs to one token. The residual's
// gradient is grad_out.
void combine_experts_backward(const Tensor& grad_rows, const Tensor& grad_weights, const Tensor& grad_out,
                              const Tensor& rows, const Tensor& slots, const Tensor& weights);

}  // namespace lathe::kernels
