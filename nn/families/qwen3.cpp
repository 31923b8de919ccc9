// Qwen3: a Llama whose q and k are normed head by head, with a head size of its own and, in its last layers, sliding
// windows where the config switches them on.
#include "core/error.h"
#include "nn/families/family.h"
#include "nn/families/gguf_fields.h"
#include "nn/families/hf_fields.h"
#include "nn/families/sliding_windows.h"

namespace lathe::nn {
namespace {

ModelConfig from_hf(const HfFields& given) {
  HfFields config = given;
  // transformers' Qwen3Config where config.json is silent.
  config.set_default("num_key_value_heads", 32);
  config.set_default("head_dim", 128);
  config.set_default("max_position_embeddings", 32768);
  config.set_default("sliding_window", 4096);
  config.set_default("max_window_layers", 28);
  ModelConfig result = read_hf_fields(config);
  result.qk_norm = QkNorm::per_head;
  set_sliding_windows(result, config);
  return result;
}

ModelConfig from_gguf(const std::shared_ptr<const GgufFile>& file) {
  const std::string window = gguf_key(*file, "attention.sliding_window");
  if (file->get_optional<int64_t>(window).value_or(0) != 0)
    throw ConfigError(window, "cannot be read from a GGUF file yet: take the Hugging Face directory");
  ModelConfig result = read_gguf_fields(file, qwen3_family);
  result.qk_norm = QkNorm::per_head;
  return result;
}

}  // namespace

constexpr Family qwen3_family{.name = "qwen3",
                              .hf_class = "Qwen3ForCausalLM",
                              .gguf_architecture = "qwen3",
                              .from_hf = from_hf,
                              .from_gguf = from_gguf,
                              .gguf_names = usual_gguf_names,
                              .gguf_rotary_rows = GgufRotaryRows::half_split};

}  // namespace lathe::nn
