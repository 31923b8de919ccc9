// LFM2 (Liquid AI): a few layers attend, with q and k normed by heads; the others mix their tokens by a short
// convolution.
#include "nn/families/lfm2.h"

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "core/json.h"
#include "nn/families/gguf_fields.h"

namespace lathe::nn {
namespace {

void set_own_fields(ModelConfig& model, int64_t taps, bool bias) {
  model.qk_norm = QkNorm::per_head;
  model.short_conv = {.taps = taps, .bias = bias};
  model.names = {.input_norm = "operator_norm",
                 .feed_forward_norm = "ffn_norm",
                 .q_norm = "self_attn.q_layernorm",
                 .k_norm = "self_attn.k_layernorm",
                 .o_proj = "self_attn.out_proj",
                 .gate_proj = "feed_forward.w1",
                 .up_proj = "feed_forward.w3",
                 .down_proj = "feed_forward.w2",
                 .final_norm = "model.embedding_norm"};
}

void set_mixers(ModelConfig& model, const HfFields& config) {
  const nlohmann::ordered_json* types = config.find("layer_types");
  const std::vector<int32_t> attending = config.token_ids("full_attn_idxs");
  for (size_t i = 0; i < model.layers.size(); ++i) {
    const bool listed = std::ranges::find(attending, static_cast<int32_t>(i)) != attending.end();
    model.layers[i].mixer = types != nullptr ? mixer_by_type(*types, i, "conv", Mixer::short_conv)
                            : listed || !config.find("full_attn_idxs") ? Mixer::attention
                                                                       : Mixer::short_conv;
  }
}

// transformers' Lfm2MLP: two thirds of what the file says, and where that is stretched, whole multiples of a number.
int64_t feed_forward_width(const HfFields& config) {
  const int64_t given = config.integer("block_ff_dim", config.integer("intermediate_size", 12288));
  if (!config.flag("block_auto_adjust_ff_dim", true)) return given;
  const int64_t two_thirds = 2 * given / 3, multiple = config.integer("block_multiple_of", 256);
  if (!config.find("block_ffn_dim_multiplier")) return two_thirds;  // null
  if (multiple < 1) throw ConfigError("block_multiple_of", "expected a positive number");
  const double stretched = config.number("block_ffn_dim_multiplier") * static_cast<double>(two_thirds);
  if (!(stretched >= 1 && stretched < INT32_MAX))
    throw ConfigError("block_ffn_dim_multiplier", "gives feed-forward blocks " + json_excerpt(stretched) + " wide");
  return (static_cast<int64_t>(stretched) + multiple - 1) / multiple * multiple;
}

}  // namespace

ModelConfig read_lfm2_fields(HfFields config) {
  // As transformers has it where config.json is silent.
  config.set_default("num_key_value_heads", 8);
  config.set_default("max_position_embeddings", 128000);
  config.set_default("rope_theta", 1000000.0);
  config.set("rms_norm_eps", config.number("norm_eps", 1e-5));
  config.set("tie_word_embeddings", config.flag("tie_embedding", config.flag("tie_word_embeddings", true)));
  ModelConfig result = read_hf_fields(config);
  set_own_fields(result, config.integer("conv_L_cache", 3), config.flag("conv_bias", false));
  set_mixers(result, config);
  return result;
}

ModelConfig read_lfm2_fields(const std::shared_ptr<const GgufFile>& file, const Family& family) {
  const std::string prefix = std::string(family.gguf_architecture) + ".", window = prefix + "attention.sliding_window";
  if (file->contains(window)) throw ConfigError(window, "is not supported yet");
  ModelConfig result = read_gguf_fields(file, family);
  set_own_fields(result, file->get_integer(prefix + "shortconv.l_cache", 1, INT32_MAX), false);
  const std::vector<int64_t> heads = gguf_kv_heads(*file, result.layers.size());
  for (size_t i = 0; i < heads.size(); ++i)
    result.layers[i].mixer = heads[i] > 0 ? Mixer::attention : Mixer::short_conv;
  return result;
}

namespace {

ModelConfig from_hf(const HfFields& given) {
  HfFields config = given;
  config.set_default("block_ffn_dim_multiplier", 1.0);
  config.set("intermediate_size", feed_forward_width(config));
  return read_lfm2_fields(std::move(config));
}

ModelConfig from_gguf(const std::shared_ptr<const GgufFile>& file) { return read_lfm2_fields(file, lfm2_family); }

}  // namespace

constexpr Family lfm2_family{.name = "lfm2",
                             .hf_class = "Lfm2ForCausalLM",
                             .gguf_architecture = "lfm2",
                             .from_hf = from_hf,
                             .from_gguf = from_gguf,
                             .gguf_names = lfm2_gguf_names,
                             .gguf_rotary_rows = GgufRotaryRows::half_split,
                             .gguf_final_norm = "token_embd_norm"};

}  // namespace lathe::nn
