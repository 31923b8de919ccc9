// OLMo 2: norms after each block and none before; q and k normed over all their heads at once.
#include "nn/families/family.h"
#include "nn/families/gguf_fields.h"
#include "nn/families/hf_fields.h"

namespace lathe::nn {
namespace {

void set_norms(ModelConfig& model) {
  model.norm_placement = NormPlacement::after;
  model.qk_norm = QkNorm::whole;
}

ModelConfig from_hf(const HfFields& given) {
  HfFields config = given;
  // transformers' Olmo2Config where config.json is silent.
  config.set_default("max_position_embeddings", 2048);
  config.set_default("rms_norm_eps", 1e-5);
  ModelConfig result = read_hf_fields(config);
  set_norms(result);
  return result;
}

ModelConfig from_gguf(const std::shared_ptr<const GgufFile>& file) {
  ModelConfig result = read_gguf_fields(file, olmo2_family);
  set_norms(result);
  return result;
}

constexpr GgufName gguf_names[] = {
    {"post_attention_layernorm", "post_attention_norm"},
    {"post_feedforward_layernorm", "post_ffw_norm"},
    {"self_attn.q_norm", "attn_q_norm"},
    {"self_attn.k_norm", "attn_k_norm"},
    {"self_attn.q_proj", "attn_q"},
    {"self_attn.k_proj", "attn_k"},
    {"self_attn.v_proj", "attn_v"},
    {"self_attn.o_proj", "attn_output"},
    {"mlp.gate_proj", "ffn_gate"},
    {"mlp.up_proj", "ffn_up"},
    {"mlp.down_proj", "ffn_down"},
};

}  // namespace

constexpr Family olmo2_family{.name = "olmo2",
                              .gguf_architecture = "olmo2",
                              .from_hf = from_hf,
                              .from_gguf = from_gguf,
                              .gguf_names = gguf_names,
                              .gguf_rotary_rows = GgufRotaryRows::half_split};

}  // namespace lathe::nn
