// Qwen3.5, text: as nn/families/gated_delta_fields.h says.
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

ModelConfig from_gguf(const std::shared_ptr<const GgufFile>& file) {
  return read_gated_delta_fields(file, qwen3_5_family);
}

}  // namespace

constexpr Family qwen3_5_family{.name = "qwen3_5_text",
                                .hf_class = "Qwen3_5ForCausalLM",
                                .gguf_architecture = "qwen35",
                                .from_hf = from_hf,
                                .from_gguf = from_gguf,
                                .gguf_names = gated_delta_gguf_names,
                                .gguf_rotary_rows = GgufRotaryRows::half_split};

}  // namespace lathe::nn
