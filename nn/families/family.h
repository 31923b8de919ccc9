// A model family maps a Hugging Face config.json, or GGUF metadata, to a ModelConfig, and says how its weights are
// called and stored in GGUF. One small file for each family; the list in family.cpp holds them all.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "nn/config.h"
#include "nn/weights/gguf.h"

namespace lathe::nn {

class HfFields;

// A linear or norm of nn/layer_layout.h, and its name in GGUF: {"self_attn.q_proj", "attn_q"}.
struct GgufName {
  std::string_view module, gguf;
  std::string_view second_half = {};  // where GGUF has its rows as two tensors
};

// The rows of each head of q and k in GGUF: as Hugging Face has them, the pairs that rotary embedding turns half a
// head apart, or with the halves interleaved, each pair side by side.
enum class GgufRotaryRows { half_split, interleaved };

struct Family {
  std::string_view name;               // our name, and config.json's model_type
  std::string_view hf_class;           // transformers' class, of config.json's architectures
  std::string_view gguf_architecture;  // general.architecture
  ModelConfig (*from_hf)(const HfFields& config);
  // Null where GGUF files of the family go by another's architecture.
  ModelConfig (*from_gguf)(const std::shared_ptr<const GgufFile>& file);
  std::span<const GgufName> gguf_names;
  GgufRotaryRows gguf_rotary_rows;
  std::string_view gguf_final_norm = "output_norm";
};

extern const Family exaone4_family;
extern const Family gemma2_family;
extern const Family gemma3_family;  // Gemma 3, text
extern const Family gpt_oss_family;
extern const Family granite_family;         // Granite 3.x, dense
extern const Family granite_moe_family;     // and with experts
extern const Family granite_hybrid_family;  // Granite 4.0
extern const Family lfm2_family;
extern const Family lfm2_moe_family;
extern const Family llama_family;       // Llama 2 and 3.x, SmolLM2; Mistral's GGUF files
extern const Family mistral_family;     // Mistral, Mistral-Nemo
extern const Family ministral3_family;  // Ministral 3
extern const Family mixtral_family;
ModelConfig mixtral_from_gguf(const std::shared_ptr<const GgufFile>& file);  // of the architecture llama
extern const Family olmo2_family;
extern const Family olmo3_family;
extern const Family olmoe_family;
extern const Family phi3_family;       // Phi-3, Phi-3.5 and Phi-4
extern const Family qwen2_family;      // Qwen2 and 2.5
extern const Family qwen2_moe_family;  // Qwen1.5-MoE, Qwen2-57B-A14B
extern const Family qwen3_family;
extern const Family qwen3_5_family;      // Qwen3.5, text
extern const Family qwen3_5_moe_family;  // with experts in all layers, text
extern const Family qwen3_moe_family;
extern const Family qwen3_next_family;
extern const Family seed_oss_family;
extern const Family smollm3_family;

// ConfigError with those that there are.
const Family& family_named(const std::string& name);
// The family by whose name the config goes.
const Family& family_of(const ModelConfig& config);

// A number of layers that a file gives, for ModelConfig::layers. ConfigError with the key where it is absurd.
size_t layer_count(const std::string& key, int64_t found);

// What each tensor of a GGUF file of this model stands for.
GgufPlaces gguf_places(const ModelConfig& config);

}  // namespace lathe::nn
