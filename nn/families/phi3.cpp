// Phi-3, Phi-3.5 and Phi-4: a Llama whose q, k and v are one linear, and gate and up another; in some sizes the long
// context of longrope, a part of each head that does not turn (Phi-4-mini), or a sliding window (Phi-3-mini-4k).
#include "core/error.h"
#include "nn/families/family.h"
#include "nn/families/gguf_fields.h"
#include "nn/families/hf_fields.h"

namespace lathe::nn {
namespace {

HfFields rope_of(const HfFields& config) {
  return config.object(config.find("rope_parameters") ? "rope_parameters" : "rope_scaling");
}

// Phi-3's configs call its scaling by three names; there is one.
RopeConfig longrope_of(const HfFields& config, const ModelConfig& model) {
  HfFields rope = rope_of(config);
  const std::string type = rope.find("rope_type") ? rope.text("rope_type") : rope.text("type", "default");
  if (type == "yarn" || type == "su") rope.set("rope_type", "longrope");
  RopeConfig result = read_rope(rope, {config.number("rope_theta", 10000.0), model.max_position_embeddings,
                                       config.integer("original_max_position_embeddings")});
  const double part = rope.number("partial_rotary_factor", config.number("partial_rotary_factor", 1.0));
  if (!(part > 0 && part <= 1)) throw ConfigError("partial_rotary_factor", "expected a number above 0, at most 1");
  result.rotary_dim = static_cast<int64_t>(static_cast<double>(model.head_dim) * part);
  return result;
}

ModelConfig from_hf(const HfFields& given) {
  HfFields config = given;
  // transformers' Phi3Config where config.json is silent.
  config.set_default("max_position_embeddings", 4096);
  config.set_default("original_max_position_embeddings", 4096);
  config.set_default("rms_norm_eps", 1e-5);
  HfFields plain = config;  // what Llama reads: the rotary table is this family's own
  plain.set("rope_parameters", nullptr);
  plain.set("rope_scaling", nullptr);
  ModelConfig result = read_hf_fields(plain);
  result.ropes = {longrope_of(config, result)};
  result.projections = Projections::fused;
  result.attention_bias = AttentionBias::none;
  for (LayerConfig& layer : result.layers) layer.sliding_window = config.integer("sliding_window", 0);
  return result;
}

ModelConfig from_gguf(const std::shared_ptr<const GgufFile>& file) {
  ModelConfig result = read_gguf_fields(file, phi3_family);
  result.projections = Projections::fused;
  const std::string window = "phi3.attention.sliding_window";
  if (file->contains(window))
    for (LayerConfig& layer : result.layers) layer.sliding_window = file->get_integer(window, 0, INT32_MAX);
  return result;
}

constexpr GgufName gguf_names[] = {
    {"input_layernorm", "attn_norm"},    {"post_attention_layernorm", "ffn_norm"}, {"self_attn.qkv_proj", "attn_qkv"},
    {"self_attn.o_proj", "attn_output"}, {"mlp.gate_up_proj", "ffn_up"},           {"mlp.down_proj", "ffn_down"},
};

}  // namespace

constexpr Family phi3_family{.name = "phi3",
                             .hf_class = "Phi3ForCausalLM",
                             .gguf_architecture = "phi3",
                             .from_hf = from_hf,
                             .from_gguf = from_gguf,
                             .gguf_names = gguf_names,
                             .gguf_rotary_rows = GgufRotaryRows::half_split};

}  // namespace lathe::nn
