// What a decoder-only transformer is made of. A family (nn/families/) fills it from a Hugging Face config.json or from
// GGUF metadata; nothing else reads those files.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace lathe::nn {

class GgufFile;

enum class RopeScalingKind { none, linear, llama3 };

// Names are transformers' rope_scaling.
struct RopeScaling {
  RopeScalingKind kind = RopeScalingKind::none;
  double factor = 1.0;
  double low_freq_factor = 1.0;
  double high_freq_factor = 4.0;
  int64_t original_max_position_embeddings = 0;
};

struct ModelConfig {
  std::string family;  // "llama"
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_hidden_layers = 0;
  int64_t num_attention_heads = 0;
  int64_t num_key_value_heads = 0;
  int64_t head_dim = 0;
  int64_t max_position_embeddings = 0;
  double rms_norm_eps = 1e-6;
  double rope_theta = 10000.0;
  RopeScaling rope_scaling;
  bool tie_word_embeddings = false;
  std::vector<int32_t> eos_token_ids;

  // All errors at once: extents that are not positive, heads that do not divide, an odd head_dim.
  void check() const;
  // Every parameter, the tied output embedding counted once.
  int64_t parameter_count() const;
};

// MODEL_DIR/config.json. Throws ConfigError naming the key, or the model_type when no family claims it.
ModelConfig read_hf_config(const std::filesystem::path& directory);
ModelConfig config_from_gguf(const GgufFile& file);

}  // namespace lathe::nn
