// An adapter merged into the weights of its base: W + s·B·A, written as a Hugging Face directory of its own.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "core/device.h"
#include "nn/model_files.h"
#include "nn/weights/peft.h"

namespace lathe::nn {

struct MergedModel {
  int64_t weights = 0, merged = 0;  // in all, and those that the adapter changed
  int64_t base_bytes = 0, bytes = 0;
  bool base_was_codes = false;
};

// Fills `directory`, which exists: every weight of the base, those that the adapter targets as W + s·B·A (with DoRA,
// rows scaled to its magnitudes), those that it has whole as they are, summed in f32 and rounded once to `dtype`, or to
// the dtype in which the base stores that weight (of codes, to the dtype that its config.json names); config.json and
// the tokenizer's files beside it. One file, or shards of at most 5 GB, of which one at a time is in memory. A tied
// output projection becomes a weight of its own where the adapter changes it or the embedding alone. ConfigError for a
// GGUF file, FormatError for an adapter that does not fit.
MergedModel write_merged_model(const std::filesystem::path& directory, const ModelFiles& base,
                               const PeftAdapter& adapter, std::optional<DType> dtype = {});

// How far the logits of some tokens lie from those of the base with the adapter beside it, both computed in f32: the
// norm of the difference ÷ the norm.
//
// Rounding a weight moves it by at most u (2⁻⁸ for bf16, 2⁻¹¹ for f16, 2⁻²⁴ for f32) of itself, and a product of K
// terms in f32 by about √K·2⁻²⁴; the errors of n products, independent of each other, add up to √n times that. `bound`
// is four times as much, for layers that amplify.
struct MergeCheck {
  int64_t tokens = 0;
  double difference = 0, bound = 0;
};

// Reads the directory back. Some rows of every merged weight are compared with W + s·B·A in f64, within the error of
// one rounding and of the sum in f32, and the logits within MergeCheck's bound: NumericError for what lies outside.
MergeCheck check_merged_model(const std::filesystem::path& directory, const ModelFiles& base,
                              const PeftAdapter& adapter, Device device = {});

}  // namespace lathe::nn
