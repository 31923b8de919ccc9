// Granite 3.x with mixtures of experts in all layers, whose weights are the softmax of the chosen logits alone.
#include "core/error.h"
#include "nn/families/gguf_fields.h"
#include "nn/families/granite.h"

namespace lathe::nn {

void set_granite_experts(ModelConfig& model, int64_t experts, int64_t per_token) {
  model.experts = {.num_experts = experts,
                   .num_experts_per_tok = per_token,
                   .intermediate_size = model.intermediate_size,
                   .norm_topk_prob = true,
                   .module = "block_sparse_moe",
                   .router = "router.layer",
                   .module_of_parameters = "block_sparse_moe",
                   .stacked = StackedExperts::gate_before_up};
  for (LayerConfig& layer : model.layers) layer.experts = true;
}

namespace {

ModelConfig from_hf(const HfFields& config) {
  ModelConfig result = granite_from_hf(config);
  set_granite_experts(result, config.integer("num_local_experts", 8), config.integer("num_experts_per_tok", 2));
  return result;
}

ModelConfig from_gguf(const std::shared_ptr<const GgufFile>& file) {
  ModelConfig result = granite_from_gguf(file, granite_moe_family);
  if (file->get_optional<int64_t>("granitemoe.expert_shared_feed_forward_length").value_or(0) > 0)
    throw ConfigError("granitemoe.expert_shared_feed_forward_length", "is not supported yet: an expert of all tokens");
  const ExpertCounts counts = read_gguf_expert_counts(*file);
  set_granite_experts(result, counts.experts, counts.per_token);
  return result;
}

}  // namespace

constexpr Family granite_moe_family{.name = "granitemoe",
                                    .hf_class = "GraniteMoeForCausalLM",
                                    .gguf_architecture = "granitemoe",
                                    .from_hf = from_hf,
                                    .from_gguf = from_gguf,
                                    .gguf_names = usual_gguf_names,
                                    .gguf_rotary_rows = GgufRotaryRows::interleaved};

}  // namespace lathe::nn
