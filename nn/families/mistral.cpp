// Mistral and Mistral-Nemo: a Llama whose every layer may have a sliding window (the first Mistral), with a head size
// of its own (Nemo). Their GGUF files are those of the architecture llama. Ministral 3: the same with yarn, and queries
// that grow with their positions, under names of its own.
#include "nn/families/family.h"
#include "nn/families/gguf_fields.h"
#include "nn/families/hf_fields.h"

namespace lathe::nn {
namespace {

constexpr const char* query_beta_key = "llama_4_scaling_beta";

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

// transformers' Ministral3Config where config.json is silent.
ModelConfig ministral3_from_hf(const HfFields& given) {
  HfFields config = given;
  config.set_default("num_key_value_heads", 8);
  config.set_default("head_dim", 128);
  config.set_default("max_position_embeddings", 262144);
  config.set_default("rms_norm_eps", 1e-5);
  config.set_default("rope_parameters", {{"rope_type", "yarn"},
                                         {"rope_theta", 1000000.0},
                                         {"factor", 16.0},
                                         {"original_max_position_embeddings", 16384},
                                         {"mscale", 1.0},
                                         {"mscale_all_dim", 1.0},
                                         {query_beta_key, 0.1}});
  ModelConfig result = read_hf_fields(config);
  result.attention_bias = AttentionBias::none;
  for (LayerConfig& layer : result.layers) layer.sliding_window = config.integer("sliding_window", 0);
  const HfFields rope = config.object("rope_parameters");
  result.ropes[0].query_beta = rope.number(query_beta_key);
  result.ropes[0].scaling.original_max_position_embeddings = rope.integer("original_max_position_embeddings");
  return result;
}

ModelConfig ministral3_from_gguf(const std::shared_ptr<const GgufFile>& file) {
  ModelConfig result = read_gguf_fields(file, ministral3_family);
  const std::string beta = "mistral3.attention.temperature_scale";
  if (!file->contains(beta)) return result;
  result.ropes[0].query_beta = file->get_number(beta);
  result.ropes[0].scaling.original_max_position_embeddings =
      file->get_integer("mistral3.rope.scaling.original_context_length", 1, INT32_MAX);
  return result;
}

}  // namespace

constexpr Family ministral3_family{.name = "ministral3",
                                   .hf_class = "Ministral3ForCausalLM",
                                   .gguf_architecture = "mistral3",
                                   .from_hf = ministral3_from_hf,
                                   .from_gguf = ministral3_from_gguf,
                                   .gguf_names = usual_gguf_names,
                                   .gguf_rotary_rows = GgufRotaryRows::interleaved};

constexpr Family mistral_family{.name = "mistral",
                                .hf_class = "MistralForCausalLM",
                                .gguf_architecture = "llama",
                                .from_hf = from_hf,
                                .from_gguf = nullptr,
                                .gguf_names = usual_gguf_names,
                                .gguf_rotary_rows = GgufRotaryRows::interleaved};

}  // namespace lathe::nn
