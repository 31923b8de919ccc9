// What Qwen3-Next and Qwen3.5 have in common: gated delta nets in three of four layers, attention with a gate on what
// it finds in the others; heads turn a quarter of their dimensions, and norms are held less 1.
#pragma once

#include <memory>

#include "nn/families/family.h"
#include "nn/families/hf_fields.h"

namespace lathe::nn {

// Llama's fields of config.json and these, with transformers' values where the file is silent. ConfigError or
// FormatError naming the key.
ModelConfig read_gated_delta_fields(HfFields config, const Family& family);

// The same of GGUF, whose norms have the one added. Layers that guess several tokens at once, which stand behind the
// others there, are left alone.
ModelConfig read_gated_delta_fields(const std::shared_ptr<const GgufFile>& file, const Family& family);

inline constexpr GgufName gated_delta_gguf_names[] = {
    {"input_layernorm", "attn_norm"},
    {"post_attention_layernorm", "post_attention_norm"},
    {"self_attn.q_norm", "attn_q_norm"},
    {"self_attn.k_norm", "attn_k_norm"},
    {"self_attn.q_proj", "attn_q"},
    {"self_attn.k_proj", "attn_k"},
    {"self_attn.v_proj", "attn_v"},
    {"self_attn.o_proj", "attn_output"},
    {"linear_attn.in_proj_qkv", "attn_qkv"},  // of Qwen3-Next, too: nn/weights/key_head_rows.h
    {"linear_attn.in_proj_z", "attn_gate"},
    {"linear_attn.in_proj_b", "ssm_beta"},
    {"linear_attn.in_proj_a", "ssm_alpha"},
    {"linear_attn.in_proj_ba", "ssm_ba"},
    {"linear_attn.conv1d", "ssm_conv1d"},
    {"linear_attn.norm", "ssm_norm"},
    {"linear_attn.out_proj", "ssm_out"},
    {"mlp.gate_proj", "ffn_gate"},
    {"mlp.up_proj", "ffn_up"},
    {"mlp.down_proj", "ffn_down"},
    {"mlp.shared_expert.gate_proj", "ffn_gate_shexp"},
    {"mlp.shared_expert.up_proj", "ffn_up_shexp"},
    {"mlp.shared_expert.down_proj", "ffn_down_shexp"},
    {"mlp.shared_expert_gate", "ffn_gate_inp_shexp"},
};

}  // namespace lathe::nn
