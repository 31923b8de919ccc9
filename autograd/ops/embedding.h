// out[t, :] = weight[ids[t], :] (kernels/embedding/embedding.h), and what adapters make of it: another weight, or LoRA,
// s · B·A[:, id], as PEFT has it (lora_embedding_A, lora_embedding_B; no dropout).
#pragma once

#include <optional>
#include <vector>

#include "autograd/ops/linear.h"

namespace lathe::autograd {

// Of some sequences: a weight in place of the one that the others have, or a term beside it.
struct EmbeddingTerm {
  Variable weight = {};     // [V, H], or undefined
  Variable a = {}, b = {};  // [r, V], [H, r], or undefined
  float scale = 1.0f;
  std::optional<SequenceRun> sequences = {};  // all of them where it is not given
};

// ids i32 [T]; weight [V, H] → [T, H] of the weight's dtype. A trainable weight's gradient is scattered. The terms'
// sequences ascend and do not overlap. Where the ids lie on a device and anything trains, so does `plan`, theirs
// (kernels::embedding_plan), and each term is of all sequences.
Variable embedding(const LinearWeight& weight, const Tensor& ids, const SequenceLayout& layout,
                   const std::vector<EmbeddingTerm>& terms = {}, const Tensor& plan = {});

}  // namespace lathe::autograd
