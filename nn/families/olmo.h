// What OLMo 2 and OLMo 3 have in common: norms after each block and none before; q and k normed over all their heads at
// once.
#pragma once

#include "nn/families/family.h"

namespace lathe::nn {

inline void set_olmo_norms(ModelConfig& model) {
  model.norm_placement = NormPlacement::after;
  model.qk_norm = QkNorm::whole;
}

inline constexpr GgufName olmo_gguf_names[] = {
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

// Of the architecture olmo2 with a sliding window.
ModelConfig olmo3_from_gguf(const std::shared_ptr<const GgufFile>& file);

}  // namespace lathe::nn
