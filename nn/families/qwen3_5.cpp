// Qwen3.5, text: three of four layers are gated delta nets, the others attend with a gate on what they find; heads turn
// a quarter of their dimensions, and norms are held less 1.
#include <algorithm>

#include "core/error.h"
#include "nn/families/family.h"
#include "nn/families/gguf_fields.h"
#include "nn/families/hf_fields.h"

namespace lathe::nn {
namespace {

constexpr int64_t usual_interval = 4;

Mixer mixer_by_interval(size_t layer, int64_t interval) {
  return (static_cast<int64_t>(layer) + 1) % interval == 0 ? Mixer::attention : Mixer::gated_delta;
}

int64_t checked_interval(const std::string& key, int64_t interval) {
  if (interval < 1) throw ConfigError(key, "expected at least 1");
  return interval;
}

// transformers' Qwen3_5TextConfig where config.json is silent.
HfFields with_defaults(HfFields config) {
  config.set_default("vocab_size", 248320);
  config.set_default("num_attention_heads", 16);
  config.set_default("num_key_value_heads", 4);
  config.set_default("head_dim", 256);
  config.set_default("max_position_embeddings", 32768);
  config.set_default("linear_conv_kernel_dim", 4);
  config.set_default("linear_key_head_dim", 128);
  config.set_default("linear_value_head_dim", 128);
  config.set_default("linear_num_key_heads", 16);
  config.set_default("linear_num_value_heads", 32);
  return config;
}

ModelConfig from_hf(const HfFields& given) {
  HfFields config = with_defaults(given);
  config.set("model_type", std::string(qwen3_5_family.name));
  ModelConfig result = read_hf_fields(config);
  result.qk_norm = QkNorm::per_head;
  result.attention_gate = true;
  result.norm_weight_offset = 1;
  result.unused_weights = {"mtp."};
  const HfFields rope = config.object("rope_parameters");
  const double part = rope.number("partial_rotary_factor", config.number("partial_rotary_factor", 0.25));
  if (!(part > 0 && part <= 1)) throw ConfigError("partial_rotary_factor", "expected more than 0 and at most 1");
  const auto turned = static_cast<int64_t>(static_cast<double>(result.head_dim) * part);
  result.ropes[0].rotary_dim = turned == result.head_dim ? 0 : turned;
  result.gated_delta = {.heads = {.key_heads = config.integer("linear_num_key_heads"),
                                  .value_heads = config.integer("linear_num_value_heads"),
                                  .key_dim = config.integer("linear_key_head_dim"),
                                  .value_dim = config.integer("linear_value_head_dim")},
                        .taps = config.integer("linear_conv_kernel_dim")};
  const nlohmann::ordered_json* types = config.find("layer_types");
  const int64_t interval =
      checked_interval("full_attention_interval", config.integer("full_attention_interval", usual_interval));
  for (size_t i = 0; i < result.layers.size(); ++i)
    result.layers[i].mixer = types != nullptr ? mixer_by_type(*types, i, "linear_attention", Mixer::gated_delta)
                                              : mixer_by_interval(i, interval);
  return result;
}

// The file's norms have the one added.
ModelConfig from_gguf(const std::shared_ptr<const GgufFile>& file) {
  ModelConfig result = read_gguf_fields(file, qwen3_5_family);
  const auto count = [&file](const char* key) { return file->get_integer(std::string("qwen35.") + key, 1, INT32_MAX); };
  result.qk_norm = QkNorm::per_head;
  result.attention_gate = true;
  GatedDeltaConfig& delta = result.gated_delta;
  delta.heads.key_heads = count("ssm.group_count");
  delta.heads.value_heads = count("ssm.time_step_rank");
  delta.heads.key_dim = count("ssm.state_size");
  delta.heads.value_dim = count("ssm.inner_size") / delta.heads.value_heads;
  delta.taps = count("ssm.conv_kernel");
  // Layers that guess several tokens at once stand behind the others, and are left alone.
  const std::string guessing = "qwen35.nextn_predict_layers", interval_key = "qwen35.full_attention_interval";
  if (file->contains(guessing)) {
    const auto all = static_cast<int64_t>(result.layers.size()), own = all - file->get_integer(guessing, 0, all - 1);
    result.layers.resize(static_cast<size_t>(own));
    for (int64_t i = own; i < all; ++i) result.unused_weights.push_back("blk." + std::to_string(i) + ".");
  }
  const int64_t interval =
      file->contains(interval_key) ? file->get_integer(interval_key, 1, INT32_MAX) : usual_interval;
  for (size_t i = 0; i < result.layers.size(); ++i) result.layers[i].mixer = mixer_by_interval(i, interval);
  return result;
}

constexpr GgufName gguf_names[] = {
    {"input_layernorm", "attn_norm"},
    {"post_attention_layernorm", "post_attention_norm"},
    {"self_attn.q_norm", "attn_q_norm"},
    {"self_attn.k_norm", "attn_k_norm"},
    {"self_attn.q_proj", "attn_q"},
    {"self_attn.k_proj", "attn_k"},
    {"self_attn.v_proj", "attn_v"},
    {"self_attn.o_proj", "attn_output"},
    {"linear_attn.in_proj_qkv", "attn_qkv"},
    {"linear_attn.in_proj_z", "attn_gate"},
    {"linear_attn.in_proj_b", "ssm_beta"},
    {"linear_attn.in_proj_a", "ssm_alpha"},
    {"linear_attn.conv1d", "ssm_conv1d"},
    {"linear_attn.norm", "ssm_norm"},
    {"linear_attn.out_proj", "ssm_out"},
    {"mlp.gate_proj", "ffn_gate"},
    {"mlp.up_proj", "ffn_up"},
    {"mlp.down_proj", "ffn_down"},
};

}  // namespace

constexpr Family qwen3_5_family{.name = "qwen3_5_text",
                                .hf_class = "Qwen3_5ForCausalLM",
                                .gguf_architecture = "qwen35",
                                .from_hf = from_hf,
                                .from_gguf = from_gguf,
                                .gguf_names = gguf_names,
                                .gguf_rotary_rows = GgufRotaryRows::half_split};

}  // namespace lathe::nn
