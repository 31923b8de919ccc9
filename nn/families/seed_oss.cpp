// Seed-OSS: a Llama whose q, k and v have biases, and its output projection none unless the config says so, with a head
// size of its own.
#include "core/error.h"
#include "nn/families/family.h"
#include "nn/families/gguf_fields.h"
#include "nn/families/hf_fields.h"

namespace lathe::nn {
namespace {

ModelConfig from_hf(const HfFields& given) {
  HfFields config = given;
  // transformers' SeedOssConfig where config.json is silent.
  config.set_default("num_key_value_heads", 8);
  config.set_default("head_dim", 128);
  config.set_default("max_position_embeddings", 524288);
  if (config.flag("mlp_bias", false)) throw ConfigError("mlp_bias", "true is not supported yet");
  ModelConfig result = read_hf_fields(config);
  const bool qkv = config.flag("attention_bias", true), output = config.flag("attention_out_bias", false);
  if (output && !qkv) throw ConfigError("attention_out_bias", "is true without attention_bias, which is not supported");
  result.attention_bias = output ? AttentionBias::qkvo : qkv ? AttentionBias::qkv : AttentionBias::none;
  return result;
}

ModelConfig from_gguf(const std::shared_ptr<const GgufFile>& file) { return read_gguf_fields(file, seed_oss_family); }

// llama.cpp calls the feed-forward block's norm by attention's end.
constexpr GgufName gguf_names[] = {
    {"input_layernorm", "attn_norm"}, {"post_attention_layernorm", "post_attention_norm"},
    {"self_attn.q_proj", "attn_q"},   {"self_attn.k_proj", "attn_k"},
    {"self_attn.v_proj", "attn_v"},   {"self_attn.o_proj", "attn_output"},
    {"mlp.gate_proj", "ffn_gate"},    {"mlp.up_proj", "ffn_up"},
    {"mlp.down_proj", "ffn_down"},
};

}  // namespace

constexpr Family seed_oss_family{.name = "seed_oss",
                                 .hf_class = "SeedOssForCausalLM",
                                 .gguf_architecture = "seed_oss",
                                 .from_hf = from_hf,
                                 .from_gguf = from_gguf,
                                 .gguf_names = gguf_names,
                                 .gguf_rotary_rows = GgufRotaryRows::half_split};

}  // namespace lathe::nn
