// Mixtral: a Mistral whose feed-forward blocks are mixtures of experts. Its GGUF files are those of the architecture
// llama, with experts.
#include "core/error.h"
#include "nn/families/family.h"
#include "nn/families/gguf_fields.h"
#include "nn/families/hf_fields.h"

namespace lathe::nn {
namespace {

void set_experts(ModelConfig& model, int64_t experts, int64_t per_token) {
  model.experts = {.num_experts = experts,
                   .num_experts_per_tok = per_token,
                   .intermediate_size = model.intermediate_size,
                   .norm_topk_prob = true,
                   .module = "block_sparse_moe",
                   .gate_proj = "w1",
                   .up_proj = "w3",
                   .down_proj = "w2"};
  for (LayerConfig& layer : model.layers) layer.experts = true;
}

ModelConfig from_hf(const HfFields& given) {
  HfFields config = given;
  // transformers' MixtralConfig where config.json is silent.
  config.set_default("num_key_value_heads", 8);
  config.set_default("max_position_embeddings", 131072);
  config.set_default("rms_norm_eps", 1e-5);
  config.set_default("rope_theta", 1000000.0);
  config.set_default("num_local_experts", 8);
  config.set_default("num_experts_per_tok", 2);
  if (config.number("router_jitter_noise", 0) != 0)
    throw ConfigError("router_jitter_noise", "is not supported: set it to 0");
  ModelConfig result = read_hf_fields(config);
  result.attention_bias = AttentionBias::none;
  for (LayerConfig& layer : result.layers) layer.sliding_window = config.integer("sliding_window", 0);
  set_experts(result, config.integer("num_local_experts"), config.integer("num_experts_per_tok"));
  return result;
}

}  // namespace

ModelConfig mixtral_from_gguf(const std::shared_ptr<const GgufFile>& file) {
  ModelConfig result = read_gguf_fields(file, mixtral_family);
  const ExpertCounts counts = read_gguf_expert_counts(*file);
  set_experts(result, counts.experts, counts.per_token);
  return result;
}

constexpr Family mixtral_family{.name = "mixtral",
                                .hf_class = "MixtralForCausalLM",
                                .gguf_architecture = "llama",
                                .from_hf = from_hf,
                                .from_gguf = nullptr,
                                .gguf_names = usual_gguf_names,
                                .gguf_rotary_rows = GgufRotaryRows::interleaved};

}  // namespace lathe::nn
