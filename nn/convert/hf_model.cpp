#include "nn/convert/hf_model.h"

#include "core/error.h"
#include "nn/families/family.h"
#include "nn/layer_layout.h"

namespace lathe::nn {
namespace {

// What the family's directories hold of a norm is its weight less this.
double hf_norm_offset(const std::string& family) {
  for (const char* less_one : {"gemma2", "gemma3_text", "qwen3_5_text", "qwen3_5_moe_text", "qwen3_next"})
    if (family == less_one) return 1;
  return 0;
}

// config.json says them.
bool is_rotary_factors(const WeightInfo& info) { return info.name.starts_with("rope_f") && info.shape.rank() == 1; }

}  // namespace

std::set<std::string> weights_in_f32(const ModelConfig& config) {
  std::set<std::string> names;
  if (!config.experts.choice_bias) return names;
  for (int64_t i = 0; i < config.num_hidden_layers(); ++i)
    if (const auto bias = layer_layout(config, i).choice_bias) names.insert(layer_prefix(i) + bias->name);
  return names;
}

std::vector<SafetensorsToWrite> hf_weights_of(const ModelFiles& files, DType dtype) {
  std::set<std::string> places;
  for (const auto& [gguf_name, place] : gguf_places(files.config)) {
    places.insert(place.name);
    places.insert(place.parts.begin(), place.parts.end());
  }
  const double added = files.gguf ? hf_norm_offset(files.config.family) - files.config.norm_weight_offset : 0;
  if (files.gguf)
    for (const WeightInfo& info : files.weights->weights())
      if (!places.contains(info.name) && !is_rotary_factors(info))
        throw FormatError(files.path.string(), -1, info.name + " has no place in transformers' " + files.config.family);
  const std::shared_ptr<const WeightSource> source = directory_weights(files);
  const std::set<std::string> in_f32 = weights_in_f32(files.config);
  std::vector<SafetensorsToWrite> weights;
  for (const WeightInfo& info : source->weights()) {
    if (is_rotary_factors(info)) continue;
    if (info.name == "lm_head.weight" && files.config.tie_word_embeddings) continue;
    const bool shifted = added != 0 && info.shape.rank() == 1 && has_norm_offset(info.name);
    const auto offset = static_cast<float>(shifted ? added : 0);
    const int64_t columns = info.shape.rank() > 0 ? info.shape[-1] : 1;
    weights.push_back({{info.name, info.shape,
                        [=, name = info.name](int64_t first, int64_t count, float* out) {
                          source->read_rows(name, first, count, out);
                          for (int64_t i = 0; shifted && i < count * columns; ++i) out[i] -= offset;
                        }},
                       in_f32.contains(info.name) ? DType::f32 : dtype});
  }
  return weights;
}

}  // namespace lathe::nn
