// A model on disk: a Hugging Face directory or a .gguf file, opened and checked, nothing read into memory yet.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "core/device.h"
#include "core/dtype.h"
#include "nn/config.h"
#include "nn/weights/gguf.h"
#include "nn/weights/weight_source.h"

namespace lathe::nn {

struct ModelFiles {
  std::filesystem::path path;
  ModelConfig config;
  std::shared_ptr<const WeightSource> weights;  // null where open_model_config() found none
  std::shared_ptr<const GgufFile> gguf;         // null for a directory
  // Sentences for the user: where the files contradict each other, and what counts.
  std::vector<std::string> warnings = {};
};

// `model` is a path or a name on a Hub (nn/model_path.h). Throws ConfigError when it is neither, FormatError or
// ConfigError for what is wrong inside. A directory whose config ties the embeddings while its lm_head.weight differs
// from them is a model with an output embedding of its own, as in transformers: config.tie_word_embeddings is false
// then, and a warning says so.
ModelFiles open_model_files(const std::filesystem::path& model);

// The same of a directory that may lack its weights: `weights` is null then. For plans.
ModelFiles open_model_config(const std::filesystem::path& model);

// The weights as a Hugging Face directory has them, which may hold several of ours in one tensor
// (nn/weights/stacked_experts.h). `files` must outlive the result.
std::shared_ptr<const WeightSource> directory_weights(const ModelFiles& files);

// The dtype that "auto" stands for: bf16 where the device multiplies bf16 itself (every card does, not every CPU),
// f32 elsewhere. Else "f32"/"float32", "bf16"/"bfloat16", "f16"/"float16", "f64"/"float64"; ConfigError for any
// other word.
DType parse_compute_dtype(const std::string& text, Device device = {});

// What inference computes with: the dtype of activations, and what becomes of matrices that a GGUF file has in blocks.
struct InferencePrecision {
  DType dtype = DType::f32;
  StoredBlockUse stored_blocks = StoredBlockUse::widen;
};
// Of the flags --weights ("file": blocks are kept; "bf16", "f32": widened to that dtype) and --dtype, which is "auto"
// or the same where the weights are widened; else ConfigError.
InferencePrecision parse_inference_precision(const std::string& weights, const std::string& dtype, Device device = {});

}  // namespace lathe::nn
