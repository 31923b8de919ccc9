// A generation batch: completions with what was found out about them when they were new. Several optimiser steps may
// learn from one; between them it is the objective's state.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "train/grpo/rollouts.h"

namespace lathe::train {

struct ScoredRollout {
  int64_t row = 0;  // of its prompt
  Rollout rollout;
  // Of each token under the reference; null where there is none. Of a draw that is new, work of the host in the
  // device's queue has yet to write them: they are there when the device has been waited for, and for what is queued
  // later.
  std::shared_ptr<const std::vector<float>> ref_logprobs;
  double advantage = 0;
};

struct GenerationBatch {
  int64_t draw = -1;  // the draw of rows that it answers; -1: none yet
  std::vector<ScoredRollout> completions;
};

// As JSON. Numbers come back as they were, to the bit. FormatError with the key that is wrong: rows from `rows` on,
// tokens from vocab_size on, lists of different lengths.
std::string generation_batch_text(const GenerationBatch& batch);
GenerationBatch read_generation_batch(std::string_view text, const std::string& file, int64_t rows, int64_t vocab_size);

// The same as generation_batch.json in the folder.
void save_generation_batch(const std::filesystem::path& folder, const GenerationBatch& batch);
GenerationBatch load_generation_batch(const std::filesystem::path& folder, int64_t rows, int64_t vocab_size);

}  // namespace lathe::train
