// What a decoder-only transformer is made of. A family (nn/families/) fills it from a Hugging Face config.json or from
// GGUF metadata; nothing else reads those files. What follows for each layer's weights is in nn/layer_layout.h.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
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

// The angles of one rotary table.
struct RopeConfig {
  double theta = 10000.0;
  RopeScaling scaling;
  std::vector<float> frequency_factors = {};  // [head_dim / 2], each divides its inverse frequency; empty: ones
};

inline constexpr int64_t no_rope = -1;

// What may differ from layer to layer.
struct LayerConfig {
  int64_t sliding_window = 0;  // > 0: a token sees itself and the sliding_window − 1 before it; 0: all before it
  int64_t rope = 0;            // which of ModelConfig::ropes, or no_rope: q and k stay as they are
};

enum class Activation { silu, gelu_tanh };  // of the feed-forward gate
enum class QkNorm { none, per_head };  // per_head: RMS norm over each head of q and k, one weight [head_dim] for each
// before: each block norms its input. before_and_after: its output too, before it is added to what came in.
enum class NormPlacement { before, before_and_after };
enum class AttentionBias { none, qkv, qkvo };  // which of the attention's linears have one

struct ModelConfig {
  std::string family;  // "llama": the name in nn/families/
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_attention_heads = 0;
  int64_t num_key_value_heads = 0;
  int64_t head_dim = 0;
  int64_t max_position_embeddings = 0;
  double rms_norm_eps = 1e-6;
  std::vector<RopeConfig> ropes = {RopeConfig{}};
  std::vector<LayerConfig> layers;
  Activation activation = Activation::silu;
  QkNorm qk_norm = QkNorm::none;
  NormPlacement norm_placement = NormPlacement::before;
  double norm_weight_offset = 0;     // 1 where files hold the norms' weights less 1
  double embedding_scale = 1;        // of the rows that go in
  double query_pre_attn_scalar = 0;  // attention's scores are divided by its root; 0: head_dim
  AttentionBias attention_bias = AttentionBias::none;
  bool tie_word_embeddings = false;
  std::vector<int32_t> eos_token_ids;

  int64_t num_hidden_layers() const { return static_cast<int64_t>(layers.size()); }
  // All errors at once: extents that are not positive, heads that do not divide, an odd head_dim, rotary angles that
  // would not be numbers.
  void check() const;
  // Every parameter, the tied output embedding counted once.
  int64_t parameter_count() const;
};

// MODEL_DIR/config.json. Throws FormatError or ConfigError naming the key, or the model_type when no family
// claims it.
ModelConfig read_hf_config(const std::filesystem::path& directory);
ModelConfig config_from_gguf(const std::shared_ptr<const GgufFile>& file);

}  // namespace lathe::nn
