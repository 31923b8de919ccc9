// Qwen2 and 2.5: a Llama whose q, k and v have biases and, in its last layers, sliding windows where the config
// switches them on.
#include "core/error.h"
#include "nn/families/family.h"
#include "nn/families/gguf_fields.h"
#include "nn/families/hf_fields.h"
#include "nn/families/sliding_windows.h"

namespace lathe::nn {
namespace {

ModelConfig from_hf(const HfFields& given) {
  HfFields config = given;
  // transformers' Qwen2Config where config.json is silent.
  config.set_default("num_key_value_heads", 32);
  config.set_default("max_position_embeddings", 32768);
  config.set_default("sliding_window", 4096);
  config.set_default("max_window_layers", 28);
  ModelConfig result = read_hf_fields(config);
  result.attention_bias = AttentionBias::qkv;
  set_sliding_windows(result, config);
  return result;
}

ModelConfig from_gguf(const std::shared_ptr<const GgufFile>& file) {
  const std::string window = gguf_key(*file, "attention.sliding_window");
  if (file->get_optional<int64_t>(window).value_or(0) != 0)
    throw ConfigError(window, "cannot be read from a GGUF file yet: take the Hugging Face directory");
  return read_gguf_fields(file, qwen2_family);
}

}  // namespace

constexpr Family qwen2_family{.name = "qwen2",
                              .hf_class = "Qwen2ForCausalLM",
                              .gguf_architecture = "qwen2",
                              .from_hf = from_hf,
                              .from_gguf = from_gguf,
                              .gguf_names = usual_gguf_names,
                              .gguf_rotary_rows = GgufRotaryRows::half_split};

}  // namespace lathe::nn
