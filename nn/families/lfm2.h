// What LFM2 and LFM2-MoE have in common.
#pragma once

#include <memory>

#include "nn/families/family.h"
#include "nn/families/hf_fields.h"

namespace lathe::nn {

// The fields of config.json, but for how wide feed-forward blocks are, which "intermediate_size" says here.
ModelConfig read_lfm2_fields(HfFields config);
ModelConfig read_lfm2_fields(const std::shared_ptr<const GgufFile>& file, const Family& family);

inline constexpr GgufName lfm2_gguf_names[] = {
    {"operator_norm", "attn_norm"},
    {"ffn_norm", "ffn_norm"},
    {"self_attn.q_layernorm", "attn_q_norm"},
    {"self_attn.k_layernorm", "attn_k_norm"},
    {"self_attn.q_proj", "attn_q"},
    {"self_attn.k_proj", "attn_k"},
    {"self_attn.v_proj", "attn_v"},
    {"self_attn.out_proj", "attn_output"},
    {"conv.in_proj", "shortconv.in_proj"},
    {"conv.conv", "shortconv.conv"},
    {"conv.out_proj", "shortconv.out_proj"},
    {"feed_forward.w1", "ffn_gate"},
    {"feed_forward.w3", "ffn_up"},
    {"feed_forward.w2", "ffn_down"},
};

}  // namespace lathe::nn
