// Mistral and Mistral-Nemo: a Llama whose every layer may have a sliding window (the first Mistral), with a head size
// of its own (Nemo). Their GGUF files are those of the architecture llama.
#include "nn/families/family.h"
#include "nn/families/gguf_fields.h"
#include "nn/families/hf_fields.h"

namespace lathe::nn {
namespace {

ModelConfig from_hf(const HfFields& given) {
  HfFields config = given;
  // transformers' MistralConfig where config.json is silent.
  config.set_default("num_key_value_heads", 8);
  config.set_default("max_position_embeddings", 131072);
  config.set_default("sliding_window", 4096);
  ModelConfig result = read_hf_fields(config);
  result.attention_bias = AttentionBias::none;
  for (LayerConfig& layer : result.layers) layer.sliding_window = config.integer("sliding_window", 0);
  return result;
}

}  // namespace

constexpr Family mistral_family{.name = "mistral",
                                .gguf_architecture = "llama",
                                .from_hf = from_hf,
                                .from_gguf = nullptr,
                                .gguf_names = usual_gguf_names,
                                .gguf_rotary_rows = GgufRotaryRows::interleaved};

}  // namespace lathe::nn
