// What the families' GGUF files have in common.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "nn/config.h"
#include "nn/families/family.h"

namespace lathe::nn {

// The keys that every architecture has, each behind its own name ("llama.block_count"): layers that are all alike,
// one rotary table. Without output.weight the embedding is tied; biases are there where their tensors are. FormatError
// or ConfigError naming the key.
ModelConfig read_gguf_fields(const std::shared_ptr<const GgufFile>& file, const Family& family);

// "ARCHITECTURE.name", by the file's architecture: a family's may have several.
std::string gguf_key(const GgufFile& file, const char* name);

// How many key/value heads each layer has, as ARCHITECTURE.attention.head_count_kv lists them, or one number says of
// all; 0 where a layer does not attend. FormatError for another number of layers.
std::vector<int64_t> gguf_kv_heads(const GgufFile& file, size_t layers);

// Of an architecture with experts: how many a layer has, and how many a token goes through. FormatError naming the key.
struct ExpertCounts {
  int64_t experts, per_token;
};
ExpertCounts read_gguf_expert_counts(const GgufFile& file);

// llama.cpp's names for what Llama's layers, and those that extend them, are made of.
inline constexpr GgufName usual_gguf_names[] = {
    {"input_layernorm", "attn_norm"},    {"post_attention_layernorm", "ffn_norm"},
    {"self_attn.q_norm", "attn_q_norm"}, {"self_attn.k_norm", "attn_k_norm"},
    {"self_attn.q_proj", "attn_q"},      {"self_attn.k_proj", "attn_k"},
    {"self_attn.v_proj", "attn_v"},      {"self_attn.o_proj", "attn_output"},
    {"mlp.gate_proj", "ffn_gate"},       {"mlp.up_proj", "ffn_up"},
    {"mlp.down_proj", "ffn_down"},
};

}  // namespace lathe::nn
