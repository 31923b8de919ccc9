// The pairs of one forward: what chosen and rejected sequences begin with alike, the prompt, has its rows once.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "autograd/ops/shared_prefix_attention.h"
#include "train/settings/training_settings.h"
#include "train/training_set.h"

namespace lathe::train {

enum class PromptRows { once, twice };

// Sequence 2i is the chosen one of row i, whole; 2i + 1 is what the rejected one has beside the shared tokens.
struct PairBatch {
  MicroBatch batch;
  autograd::SharedPrefixes prefixes;
  size_t first = 0;  // its first row among those that were cut into forwards
};

// Shared are the tokens that both begin with and that neither learns from: not the prompt's last, which predicts
// another token in each.
PairBatch make_pair_batch(const TrainingSet& pairs, std::span<const int64_t> rows, int32_t first_sample,
                          PromptRows prompts);

// The rows of the largest forward that cut_pairs() can give. Sets of more than 65536 rows, and streams, are not read
// for it: there both prompts of a pair count.
int64_t largest_pair_forward(const TrainingSet& pairs, const TrainingSettings& settings, PromptRows prompts);

}  // namespace lathe::train
