// The tiny models of tests/golden/: of every family at least one, and each way that its config can take.
#pragma once

#include <filesystem>
#include <stdexcept>
#include <string>
#include <vector>

#include "tests/nn/golden_files.h"

namespace lathe::nn {

inline constexpr const char* tiny_models[] = {
    "tiny_llama/untied",     "tiny_llama/tied",      "tiny_llama31",
    "tiny_llama_bias",       "tiny_qwen2/plain",     "tiny_qwen2/windows",
    "tiny_qwen3/untied",     "tiny_qwen3/tied",      "tiny_qwen3/options",
    "tiny_mistral/window",   "tiny_mistral/nemo",    "tiny_gemma2",
    "tiny_gemma3",           "tiny_smollm3",         "tiny_phi3/longrope",
    "tiny_phi3/window",      "tiny_olmo2",           "tiny_olmo3",
    "tiny_granite",          "tiny_mixtral",         "tiny_qwen3_moe/some",
    "tiny_qwen3_moe/all",    "tiny_olmoe",           "tiny_granite_moe",
    "tiny_gpt_oss/dense",    "tiny_gpt_oss/mxfp4",   "tiny_lfm2/plain",
    "tiny_lfm2/bias",        "tiny_qwen3_5/text",    "tiny_qwen3_5/pictures",
    "tiny_qwen2_moe/some",   "tiny_qwen2_moe/all",   "tiny_qwen3_5_moe/text",
    "tiny_qwen3_5_moe/tied", "tiny_qwen3_next/all",  "tiny_qwen3_next/some",
    "tiny_lfm2_moe/biased",  "tiny_lfm2_moe/plain",  "tiny_ministral3",
    "tiny_exaone4/windows",  "tiny_exaone4/full",    "tiny_seed_oss",
    "tiny_granite4/dense",   "tiny_granite4/hybrid", "tiny_granite4/experts",
    "tiny_granite4/options",
};

inline bool has_gguf(const std::string& model) { return std::filesystem::exists(golden(model + "/model.gguf")); }

// The model's row of a golden file that has one for each.
inline nlohmann::json row_of_model(const std::string& file, const std::string& model) {
  for (nlohmann::json& row : golden_json(file))
    if (row["model"] == model) return row;
  throw std::out_of_range(file + " has no row of " + model);
}

}  // namespace lathe::nn
