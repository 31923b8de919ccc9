// What a mixture of experts needs beside its linears: the choice of experts, and the rows that go to them and come back
// (kernels/experts/experts.h).
#pragma once

#include <vector>

#include "autograd/sequence_layout.h"
#include "autograd/variable.h"
#include "kernels/experts/experts.h"
#include "kernels/gated/bodies.h"
#include "kernels/matmul/weights/weight_table.h"

namespace lathe::autograd {

struct ExpertChoice {
  Variable weights;  // f32 (f64 for f64) [T, k]
  Tensor chosen;     // i32 [T, k], on the CPU
};

// The k experts of each token by their logits [T, E]. On a device this waits for what was chosen.
ExpertChoice choose_experts(const Variable& logits, int64_t per_token, const kernels::ExpertRule& rule);

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

// x [T, H] → the rows of all slots [R, H].
Variable send_to_experts(const Variable& x, const ExpertRows& rows);
// Those rows → for each expert that has some, in order, its own [n, H]; and back.
std::vector<Variable> split_slots(const Variable& slots, const ExpertRows& rows);
Variable join_slots(const std::vector<Variable>& parts, const ExpertRows& rows);
// What the experts have made of the slots' rows [R, H] → [T, H], each token's rows summed with its weights. Where there
// is a residual [T, H] it is added: the bits of add(residual, that sum).
Variable combine_experts(const Variable& slots, const Variable& weights, const ExpertRows& rows,
                         const Variable& residual = {});

// The linears of all experts, by number; undefined where no body takes them (kernels/matmul/weights/weight_table.h).
struct ExpertTables {
  kernels::WeightTable gate, up, down;
};
// All of a mixture after its router, x [T, H] and logits [T, E] → [T, H], on a device: four launches for up to 16
// tokens, six for more (of many by weights in codes two and more for each band of these: kernels/matmul/grouped.h).
// What was chosen stays there, so that nobody waits and the step may be captured. The bits of the operations above; a
// residual [T, H], where there is one, is added in the last of the launches.
//
// Recorded, the experts are frozen: gradients go to x and to logits, by another six launches, or more by codes. Groups
// are of many rows then, and what is saved is gate, up and down's products [R, ·]. `tables` outlive the backward.
Variable grouped_experts(const Variable& x, const Variable& logits, int64_t per_token, const kernels::ExpertRule& rule,
                         const ExpertTables& tables, kernels::GateKind activation, const Variable& residual = {});

}  // namespace lathe::autograd
