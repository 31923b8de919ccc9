// What a mixture of experts needs beside its linears: the choice of experts, and the rows that go to them and come back
// (kernels/experts/experts.h).
#pragma once

#include <vector>

#include "autograd/sequence_layout.h"
#include "autograd/variable.h"
#include "kernels/experts/experts.h"

namespace lathe::autograd {

struct ExpertChoice {
  Variable weights;  // f32 (f64 for f64) [T, k]
  Tensor chosen;     // i32 [T, k], on the CPU
};

// The k experts of each token by their logits [T, E]. On a device this waits for what was chosen.
ExpertChoice choose_experts(const Variable& logits, int64_t per_token, kernels::ExpertWeights kind);

// Where each token's rows lie when the rows of one expert follow one another, those of expert 0 first, in the order of
// the tokens. So a token's rows never depend on the others; only where they lie does.
struct ExpertRows {
  Tensor tokens;                // i32 [R], on the CPU: whose row each slot holds
  Tensor slots;                 // i32 [T, k], on the device of the rows
  std::vector<int64_t> bounds;  // [E + 1]: expert e has the slots [bounds[e], bounds[e + 1])
  bool has_slots(int64_t expert) const {
    return bounds[static_cast<size_t>(expert)] < bounds[static_cast<size_t>(expert) + 1];
  }
  // The slots of expert e as a batch: cut into sequences where those of the tokens are.
  SequenceLayout layout_of(int64_t expert, const SequenceLayout& tokens_layout) const;
};
ExpertRows expert_rows(const Tensor& chosen, int64_t experts, Device device);

// x [T, H] → for each expert that has slots, in order, their tokens' rows [n, H].
std::vector<Variable> send_to_experts(const Variable& x, const ExpertRows& rows);
// What these experts have made of them, [n, H] each → [T, H], each token's rows summed with its weights.
Variable combine_experts(const std::vector<Variable>& parts, const Variable& weights, const ExpertRows& rows);

}  // namespace lathe::autograd
