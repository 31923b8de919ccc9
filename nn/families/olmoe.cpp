// OLMoE: experts in all layers, whose weights are not shared out; q and k normed over all their heads at once.
#include "core/error.h"
#include "nn/families/family.h"
#include "nn/families/gguf_fields.h"
#include "nn/families/hf_fields.h"

namespace lathe::nn {
namespace {

void set_olmoe(ModelConfig& model, int64_t experts, int64_t per_token, bool norm_topk_prob) {
  model.qk_norm = QkNorm::whole;
  model.experts = {.num_experts = experts,
                   .num_experts_per_tok = per_token,
                   .intermediate_size = model.intermediate_size,
                   .norm_topk_prob = norm_topk_prob};
  for (LayerConfig& layer : model.layers) layer.experts = true;
}

ModelConfig from_hf(const HfFields& given) {
  HfFields config = given;
  // transformers' OlmoeConfig where config.json is silent.
  config.set_default("max_position_embeddings", 4096);
  config.set_default("rms_norm_eps", 1e-5);
  config.set_default("num_experts_per_tok", 8);
  if (config.find("clip_qkv") != nullptr)
    throw ConfigError("clip_qkv", "is not supported yet: what q, k and v are made of would be cut off there");
  ModelConfig result = read_hf_fields(config);
  // transformers 5 writes num_local_experts, and reads both.
  set_olmoe(result, config.integer("num_experts", config.integer("num_local_experts", 64)),
            config.integer("num_experts_per_tok"), config.flag("norm_topk_prob", false));
  return result;
}

ModelConfig from_gguf(const std::shared_ptr<const GgufFile>& file) {
  ModelConfig result = read_gguf_fields(file, olmoe_family);
  const ExpertCounts counts = read_gguf_expert_counts(*file);
  set_olmoe(result, counts.experts, counts.per_token, false);  // the file does not say; llama.cpp does not divide
  return result;
}

}  // namespace

constexpr Family olmoe_family{.name = "olmoe",
                              .hf_class = "OlmoeForCausalLM",
                              .gguf_architecture = "olmoe",
                              .from_hf = from_hf,
                              .from_gguf = from_gguf,
                              .gguf_names = usual_gguf_names,
                              .gguf_rotary_rows = GgufRotaryRows::half_split};

}  // namespace lathe::nn
