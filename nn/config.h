// What a decoder-only transformer is made of. A family (nn/families/) fills it from a Hugging Face config.json or from
// GGUF metadata; nothing else reads those files. What follows for each layer's weights is in nn/layer_layout.h.
#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/gated_delta/heads.h"
#include "kernels/mamba2/heads.h"

namespace lathe::nn {

class GgufFile;

enum class RopeScalingKind { none, linear, llama3, yarn, dynamic, longrope };

// Names are transformers' rope_scaling. `dynamic` and `longrope` have other frequencies for long sequences than for
// short ones: which of them holds is decided once, by the longest sequence that the model is opened for
// (nn/rope_table.h), so that a token's angles never depend on what comes after it.
struct RopeScaling {
  RopeScalingKind kind = RopeScalingKind::none;
  double factor = 1.0;
  double low_freq_factor = 1.0;  // llama3
  double high_freq_factor = 4.0;
  int64_t original_max_position_embeddings = 0;  // all but linear
  double beta_fast = 32.0;                       // yarn
  double beta_slow = 1.0;
  bool truncate = true;                  // yarn: the ramp begins and ends at whole dimensions
  double attention_factor = 1.0;         // yarn, longrope: of cos and sin
  std::vector<float> short_factor = {};  // longrope: [rotary dimensions / 2], each divides its inverse frequency
  std::vector<float> long_factor = {};   // of sequences longer than original_max_position_embeddings
};

// The angles of one rotary table.
struct RopeConfig {
  double theta = 10000.0;
  RopeScaling scaling;
  std::vector<float> frequency_factors = {};  // [rotary dimensions / 2], as short_factor; empty: ones
  int64_t rotary_dim = 0;                     // how many of a head's first dimensions turn; 0: all
  // β > 0: a query at position p is multiplied by 1 + β · ln(1 + ⌊p / the context that scaling stretches⌋), by which
  // Llama 4 and Ministral 3 sharpen attention over many keys.
  double query_beta = 0;
};

inline constexpr int64_t no_rope = -1;

// What mixes the tokens of a layer.
enum class Mixer { attention, short_conv, gated_delta, mamba2 };

// What may differ from layer to layer.
struct LayerConfig {
  Mixer mixer = Mixer::attention;
  int64_t sliding_window = 0;  // > 0: a token sees itself and the sliding_window − 1 before it; 0: all before it
  int64_t rope = 0;            // which of ModelConfig::ropes, or no_rope: q and k stay as they are
  bool experts = false;        // its feed-forward block is ModelConfig::experts
};

// Of the feed-forward gate. clamped_silu: kernels/gated/gated.h's clamped SwiGLU, which changes up as well.
enum class Activation { silu, gelu_tanh, clamped_silu };
// RMS norm of q and k. per_head: over each head, one weight [head_dim] for each; whole: over all heads at once.
enum class QkNorm { none, per_head, whole };
// before: each block norms its input. after: its output instead, before it is added to what came in.
enum class NormPlacement { before, before_and_after, after };
enum class AttentionBias { none, qkv, qkvo };  // which of the attention's linears have one
// fused: q, k and v are the columns of one linear, gate and up of another, as the files have them.
enum class Projections { apart, fused };

// How a Hugging Face directory has a layer's experts: each linear apart, or all experts' in tensors of three dimensions
// (nn/weights/stacked_experts.h).
enum class StackedExperts {
  none,
  gate_and_up_in_turn,  // gpt-oss
  gate_before_up,       // Granite; read, and never written, of others that name linears as Llama does
};

// An expert that all tokens go through beside those that are chosen: its rows are added, times σ of a gate's logit
// where it has one (kernels/row_gate/row_gate.h).
struct SharedExpertConfig {
  int64_t intermediate_size = 0;  // 0: there is none
  bool gated = false;
  std::string gate_proj = "mlp.shared_expert.gate_proj", up_proj = "mlp.shared_expert.up_proj";
  std::string down_proj = "mlp.shared_expert.down_proj", gate = "mlp.shared_expert_gate";
  std::string gate_up_proj = {};  // where gate and up are one linear, in place of both
};

// A mixture of experts: each token goes through the num_experts_per_tok whose router logits are largest, and what they
// give is summed with the softmax of the logits as weights; or with σ of each logit (kernels/experts/experts.h).
struct ExpertsConfig {
  int64_t num_experts = 0;
  int64_t num_experts_per_tok = 0;
  int64_t intermediate_size = 0;  // of each expert
  bool norm_topk_prob = false;    // a token's weights are divided by their sum
  bool sigmoids = false;          // weights are σ of the logits
  bool choice_bias = false;       // with them: what is added to them for the choice alone, [experts], never trained
  double routed_scale = 1;        // with them: a factor of the weights
  bool bias = false;              // of the router and of the experts' linears
  std::string module = "mlp";     // what the block is called in a layer
  std::string router = "gate";    // and the router in it
  // What transformers calls the block while it runs, and PEFT in an adapter's names.
  std::string module_of_parameters = "mlp";
  StackedExperts stacked = StackedExperts::none;
  // The names of an expert's linears.
  std::string gate_proj = "gate_proj", up_proj = "up_proj", down_proj = "down_proj";
  SharedExpertConfig shared = {};
};

// Of the layers whose mixer is a short convolution (kernels/short_conv/short_conv.h).
struct ShortConvConfig {
  int64_t taps = 0;   // tokens that it sees, the last one its own
  bool bias = false;  // of the convolution and of the linears around it
};

// Of the layers whose mixer is a gated delta net (kernels/gated_delta/gated_delta.h), which keeps a matrix of each
// value head in place of the tokens before. Value heads that follow each other share a key head.
struct GatedDeltaConfig {
  kernels::GatedDeltaHeads heads{};
  int64_t taps = 0;  // of the convolution that q, k and v go through first
  // q, k, v and z are rows of one linear, b and a of another, each key head's together (nn/weights/key_head_rows.h).
  bool joined_projections = false;
};

// Of the layers whose mixer is Mamba-2's (kernels/mamba2/mamba2.h), which keeps a matrix of each head in place of the
// tokens before.
struct Mamba2Config {
  kernels::Mamba2Heads heads{};
  int64_t taps = 0;                          // of the convolution that x, B and C go through first
  bool conv_bias = true, proj_bias = false;  // of that, and of the linears around it
  double dt_min = 0, dt_max = std::numeric_limits<double>::infinity();
};

// What the parts of a model are called, those of a layer within it. Llama's, unless a family has others.
struct PartNames {
  std::string input_norm = "input_layernorm";
  std::string feed_forward_norm = "post_attention_layernorm";  // where blocks norm their inputs alone
  std::string q_norm = "self_attn.q_norm", k_norm = "self_attn.k_norm";
  std::string o_proj = "self_attn.o_proj";
  std::string gate_proj = "mlp.gate_proj", up_proj = "mlp.up_proj", down_proj = "mlp.down_proj";
  std::string gate_up_proj = "mlp.gate_up_proj";  // where they are one
  std::string final_norm = "model.norm";
};

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
  double norm_weight_offset = 0;       // 1 where files hold the norms' weights less 1
  double embedding_scale = 1;          // of the rows that go in
  double query_pre_attn_scalar = 0;    // attention's scores are divided by its root; 0: head_dim
  double attention_multiplier = 0;     // of the scores in place of that; 0: none
  double attn_logit_softcapping = 0;   // c > 0: scores become c · tanh(score / c)
  double final_logit_softcapping = 0;  // the same of the logits
  double residual_multiplier = 1;      // of what a block adds
  double logits_scaling = 1;           // divides the logits: the last hidden states are divided by it
  AttentionBias attention_bias = AttentionBias::none;
  bool attention_gate = false;   // beside each head's q stands a gate of what it attends to: times its sigmoid
  bool attention_sinks = false;  // a logit of each head that joins its softmax (kernels/attention_sinks)
  Projections projections = Projections::apart;
  bool fused_gate_up = false;  // gate and up are one linear though q, k and v are not
  ExpertsConfig experts;       // of the layers that have them
  ShortConvConfig short_conv;
  GatedDeltaConfig gated_delta;
  Mamba2Config mamba2;
  PartNames names;
  // Of files that hold more than this model (nn/weights/own_weights.h): one that sees or hears, whose text model it is,
  // or weights whose names begin so.
  bool multimodal = false;
  std::vector<std::string> unused_weights;
  bool tie_word_embeddings = false;
  std::vector<int32_t> eos_token_ids;

  int64_t num_hidden_layers() const { return static_cast<int64_t>(layers.size()); }
  int64_t layers_with(Mixer mixer) const;
  // Whether layers keep a state of each sequence that every token changes, so that none before can be gone back to.
  bool has_states() const { return layers_with(Mixer::gated_delta) + layers_with(Mixer::mamba2) > 0; }
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
