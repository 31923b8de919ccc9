#include "nn/families/gated_delta_fields.h"

#include <string>
#include <utility>

#include "core/error.h"
#include "nn/families/gguf_fields.h"

namespace lathe::nn {
namespace {

constexpr int64_t usual_interval = 4;

Mixer mixer_by_interval(size_t layer, int64_t interval) {
  return (static_cast<int64_t>(layer) + 1) % interval == 0 ? Mixer::attention : Mixer::gated_delta;
}

int64_t checked_interval(const std::string& key, int64_t interval) {
  if (interval < 1) throw ConfigError(key, "expected at least 1");
  return interval;
}

void set_defaults(HfFields& config) {
  config.set_default("head_dim", 256);
  config.set_default("max_position_embeddings", 32768);
  config.set_default("linear_conv_kernel_dim", 4);
  config.set_default("linear_key_head_dim", 128);
  config.set_default("linear_value_head_dim", 128);
  config.set_default("linear_num_key_heads", 16);
  config.set_default("linear_num_value_heads", 32);
}

void set_rotary_part(ModelConfig& model, const HfFields& config) {
  const HfFields rope = config.object("rope_parameters");
  const double part = rope.number("partial_rotary_factor", config.number("partial_rotary_factor", 0.25));
  if (!(part > 0 && part <= 1)) throw ConfigError("partial_rotary_factor", "expected more than 0 and at most 1");
  const auto turned = static_cast<int64_t>(static_cast<double>(model.head_dim) * part);
  model.ropes[0].rotary_dim = turned == model.head_dim ? 0 : turned;
}

void set_mixers(ModelConfig& model, const HfFields& config) {
  const nlohmann::ordered_json* types = config.find("layer_types");
  const int64_t interval =
      checked_interval("full_attention_interval", config.integer("full_attention_interval", usual_interval));
  for (size_t i = 0; i < model.layers.size(); ++i)
    model.layers[i].mixer = types != nullptr ? mixer_by_type(*types, i, "linear_attention", Mixer::gated_delta)
                                             : mixer_by_interval(i, interval);
}

}  // namespace

ModelConfig read_gated_delta_fields(HfFields config, const Family& family) {
  set_defaults(config);
  config.set("model_type", std::string(family.name));
  ModelConfig result = read_hf_fields(config);
  result.qk_norm = QkNorm::per_head;
  result.attention_gate = true;
  result.norm_weight_offset = 1;
  result.unused_weights = {"model.visual.", "mtp."};
  set_rotary_part(result, config);
  result.gated_delta = {.heads = {.key_heads = config.integer("linear_num_key_heads"),
                                  .value_heads = config.integer("linear_num_value_heads"),
                                  .key_dim = config.integer("linear_key_head_dim"),
                                  .value_dim = config.integer("linear_value_head_dim")},
                        .taps = config.integer("linear_conv_kernel_dim")};
  set_mixers(result, config);
  return result;
}

ModelConfig read_gated_delta_fields(const std::shared_ptr<const GgufFile>& file, const Family& family) {
  ModelConfig result = read_gguf_fields(file, family);
  const std::string prefix = std::string(family.gguf_architecture) + ".";
  const auto count = [&](const char* key) { return file->get_integer(prefix + key, 1, INT32_MAX); };
  result.qk_norm = QkNorm::per_head;
  result.attention_gate = true;
  GatedDeltaConfig& delta = result.gated_delta;
  delta.heads.key_heads = count("ssm.group_count");
  delta.heads.value_heads = count("ssm.time_step_rank");
  delta.heads.key_dim = count("ssm.state_size");
  delta.heads.value_dim = count("ssm.inner_size") / delta.heads.value_heads;
  delta.taps = count("ssm.conv_kernel");
  const std::string guessing = prefix + "nextn_predict_layers", interval_key = prefix + "full_attention_interval";
  if (file->contains(guessing)) {
    const auto all = static_cast<int64_t>(result.layers.size()), own = all - file->get_integer(guessing, 0, all - 1);
    result.layers.resize(static_cast<size_t>(own));
    for (int64_t i = own; i < all; ++i) result.unused_weights.push_back("blk." + std::to_string(i) + ".");
  }
  const int64_t interval =
      file->contains(interval_key) ? file->get_integer(interval_key, 1, INT32_MAX) : usual_interval;
  for (size_t i = 0; i < result.layers.size(); ++i) result.layers[i].mixer = mixer_by_interval(i, interval);
  return result;
}

}  // namespace lathe::nn
