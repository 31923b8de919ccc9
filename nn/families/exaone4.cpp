// EXAONE 4: norms after each block and none before, as OLMo 2; q and k normed by heads. Where it has windows, three of
// four layers slide and the others, which see all, do not turn q and k.
#include "core/error.h"
#include "core/json.h"
#include "nn/families/family.h"
#include "nn/families/gguf_fields.h"
#include "nn/families/hf_fields.h"
#include "nn/families/olmo.h"
#include "nn/families/sliding_windows.h"

namespace lathe::nn {
namespace {

constexpr int64_t usual_pattern = 4;  // every fourth layer sees all
constexpr size_t layers_of_32b = 64;  // which llama.cpp knows the windows by
constexpr int64_t usual_window = 4096;

void set_exaone4_norms(ModelConfig& model) {
  model.norm_placement = NormPlacement::after;
  model.qk_norm = QkNorm::per_head;
}

void slide_or_stay(LayerConfig& layer, bool slides, int64_t window) {
  if (slides) {
    layer.sliding_window = window;
  } else {
    layer.rope = no_rope;
  }
}

// "LLLG", or every n-th layer sees all.
bool slides_by_pattern(const HfFields& config, size_t layer, size_t layers) {
  const nlohmann::ordered_json* pattern = config.find("sliding_window_pattern");
  if (pattern != nullptr && pattern->is_string()) {
    const std::string letters = config.text("sliding_window_pattern");
    if (letters.empty() || letters.find_first_not_of("LG") != std::string::npos)
      throw ConfigError("sliding_window_pattern",
                        "expected a number, or L and G for layers, found " + json_excerpt(*pattern));
    return letters[layer % letters.size()] == 'L' && layer + 1 < layers;
  }
  const int64_t every = config.integer("sliding_window_pattern", usual_pattern);
  if (every < 1) throw ConfigError("sliding_window_pattern", "expected at least 1");
  return (static_cast<int64_t>(layer) + 1) % every != 0;
}

ModelConfig from_hf(const HfFields& given) {
  HfFields config = given;
  // transformers' Exaone4Config where config.json is silent.
  config.set_default("num_key_value_heads", 32);
  config.set_default("max_position_embeddings", 2048);
  config.set_default("rms_norm_eps", 1e-5);
  config.set_default("sliding_window", usual_window);
  ModelConfig result = read_hf_fields(config);
  set_exaone4_norms(result);
  const int64_t window = config.integer("sliding_window", 0);
  for (size_t i = 0; i < result.layers.size(); ++i) {
    const std::optional<bool> by_type = slides_by_type(config, i);
    if (window == 0 && by_type == true)
      throw ConfigError("layer_types", "has sliding_attention without sliding_window");
    if (window > 0)
      slide_or_stay(result.layers[i], by_type ? *by_type : slides_by_pattern(config, i, result.layers.size()), window);
  }
  return result;
}

ModelConfig from_gguf(const std::shared_ptr<const GgufFile>& file) {
  ModelConfig result = read_gguf_fields(file, exaone4_family);
  set_exaone4_norms(result);
  const std::string key = gguf_key(*file, "attention.sliding_window");
  const bool has_windows = file->contains(key) || result.layers.size() == layers_of_32b;
  if (!has_windows) return result;
  const int64_t window = file->contains(key) ? file->get_integer(key, 1, INT32_MAX) : usual_window;
  const std::vector<bool> slides = slides_by_gguf(*file, "exaone4", result.layers.size(), usual_pattern);
  for (size_t i = 0; i < result.layers.size(); ++i) slide_or_stay(result.layers[i], slides[i], window);
  return result;
}

}  // namespace

constexpr Family exaone4_family{.name = "exaone4",
                                .hf_class = "Exaone4ForCausalLM",
                                .gguf_architecture = "exaone4",
                                .from_hf = from_hf,
                                .from_gguf = from_gguf,
                                .gguf_names = olmo_gguf_names,
                                .gguf_rotary_rows = GgufRotaryRows::half_split};

}  // namespace lathe::nn
