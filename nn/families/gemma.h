// What Gemma 2 and 3 have in common: norms before and after each block, whose weights are stored less one; embeddings
// scaled by the root of the width; GELU. In bf16 the norms' weights are rounded after the one is added.
#pragma once

#include "nn/families/family.h"

namespace lathe::nn {

// What transformers' configs of both say where config.json is silent; their vocabularies and contexts differ.
void set_gemma_defaults(HfFields& config);

// ConfigError for what no Gemma is computed with: another activation, attention in both directions.
ModelConfig read_gemma_hf(const HfFields& config);

// A GGUF file's norms have the one added. The largest model, which llama.cpp, too, knows by its layers, divides its
// scores by a number of its own.
ModelConfig read_gemma_gguf(const std::shared_ptr<const GgufFile>& file, const Family& family, int64_t layers_of_27b);

inline constexpr GgufName gemma_gguf_names[] = {
    {"input_layernorm", "attn_norm"},
    {"post_attention_layernorm", "post_attention_norm"},
    {"pre_feedforward_layernorm", "ffn_norm"},
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

}  // namespace lathe::nn
