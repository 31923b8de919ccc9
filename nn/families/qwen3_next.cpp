// Qwen3-Next: the nets of Qwen3.5 as they were first, with q, k, v and z of a gated delta net in one linear, b and a in
// another; with Qwen2-MoE's mixture in all layers, or in those that the config says.
#include <utility>

#include "nn/families/gated_delta_fields.h"
#include "nn/families/qwen2_moe.h"

namespace lathe::nn {
namespace {

ModelConfig from_hf(const HfFields& given) {
  HfFields config = given;
  // transformers' Qwen3NextConfig where config.json is silent.
  for (const auto& [key, value] : {std::pair{"vocab_size", 151936},
                                   {"num_attention_heads", 16},
                                   {"num_key_value_heads", 2},
                                   {"intermediate_size", 5632},
                                   {"decoder_sparse_step", 1},
                                   {"num_experts", 512}})
    config.set_default(key, value);
  ModelConfig result = read_gated_delta_fields(config, qwen3_next_family);
  result.gated_delta.joined_projections = true;
  if (config.integer("num_experts") == 0) return result;
  set_sparse_layers(result, config);
  result.experts =
      experts_of_qwen2({config.integer("num_experts"), config.integer("num_experts_per_tok", 10)},
                       config.integer("moe_intermediate_size", 512),
                       config.integer("shared_expert_intermediate_size", 512), config.flag("norm_topk_prob", true));
  return result;
}

ModelConfig from_gguf(const std::shared_ptr<const GgufFile>& file) {
  ModelConfig result = read_gated_delta_fields(file, qwen3_next_family);
  result.gated_delta.joined_projections = true;
  // The file does not say whether weights are divided; llama.cpp does it.
  result.experts = experts_of_qwen2(
      read_gguf_expert_counts(*file), file->get_integer("qwen3next.expert_feed_forward_length", 1, INT32_MAX),
      file->get_integer("qwen3next.expert_shared_feed_forward_length", 1, INT32_MAX), true);
  for (LayerConfig& layer : result.layers) layer.experts = true;
  return result;
}

}  // namespace

constexpr Family qwen3_next_family{.name = "qwen3_next",
                                   .hf_class = "Qwen3NextForCausalLM",
                                   .gguf_architecture = "qwen3next",
                                   .from_hf = from_hf,
                                   .from_gguf = from_gguf,
                                   .gguf_names = gated_delta_gguf_names,
                                   .gguf_rotary_rows = GgufRotaryRows::half_split};

}  // namespace lathe::nn
