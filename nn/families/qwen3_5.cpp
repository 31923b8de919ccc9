// Qwen3.5, text: as nn/families/gated_delta_fields.h says. Directories that see pictures, too, hold the same model
// under another name, with a config of its own in theirs.
#include <utility>

#include "nn/families/gated_delta_fields.h"

namespace lathe::nn {
namespace {

// transformers' Qwen3_5TextConfig where config.json is silent.
ModelConfig from_hf(const HfFields& given) {
  HfFields config = given;
  config.set_default("vocab_size", 248320);
  config.set_default("num_attention_heads", 16);
  config.set_default("num_key_value_heads", 4);
  return read_gated_delta_fields(std::move(config), qwen3_5_family);
}

// What sees pictures beside it has the text's config in its own, but for a tied embedding, which either may say.
ModelConfig from_hf_with_vision(const HfFields& config) {
  HfFields text = config.object("text_config");
  text.set("tie_word_embeddings", text.flag("tie_word_embeddings", config.flag("tie_word_embeddings", false)));
  if (text.find("eos_token_id") == nullptr && config.find("eos_token_id") != nullptr)
    text.set("eos_token_id", *config.find("eos_token_id"));
  ModelConfig result = from_hf(text);
  result.weight_prefix = "model.language_model.";
  return result;
}

ModelConfig from_gguf(const std::shared_ptr<const GgufFile>& file) {
  return read_gated_delta_fields(file, qwen3_5_family);
}

}  // namespace

constexpr Family qwen3_5_family{.name = "qwen3_5_text",
                                .gguf_architecture = "qwen35",
                                .from_hf = from_hf,
                                .from_gguf = from_gguf,
                                .gguf_names = gated_delta_gguf_names,
                                .gguf_rotary_rows = GgufRotaryRows::half_split};

constexpr Family qwen3_5_vision_family{.name = "qwen3_5",
                                       .gguf_architecture = "qwen35",
                                       .from_hf = from_hf_with_vision,
                                       .from_gguf = nullptr,
                                       .gguf_names = gated_delta_gguf_names,
                                       .gguf_rotary_rows = GgufRotaryRows::half_split};

}  // namespace lathe::nn
