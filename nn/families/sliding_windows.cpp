#include "nn/families/sliding_windows.h"

#include "core/error.h"
#include "core/json.h"

namespace lathe::nn {

std::optional<bool> slides_by_type(const HfFields& config, size_t layer) {
  const nlohmann::ordered_json* types = config.find("layer_types");
  if (types == nullptr) return std::nullopt;
  if (!types->is_array() || layer >= types->size()) throw ConfigError("layer_types", "expected a word for each layer");
  const nlohmann::ordered_json& type = (*types)[layer];
  if (type == "full_attention") return false;
  if (type == "sliding_attention") return true;
  throw ConfigError("layer_types", "expected full_attention or sliding_attention, found " + json_excerpt(type));
}

void set_sliding_windows(ModelConfig& model, const HfFields& config) {
  const bool use_sliding_window = config.flag("use_sliding_window", false) && config.integer("sliding_window", 0) > 0;
  for (size_t i = 0; i < model.layers.size(); ++i) {
    const std::optional<bool> by_type = slides_by_type(config, i);
    if (by_type == true && !use_sliding_window)
      throw ConfigError("layer_types", "has sliding_attention, but use_sliding_window is false");
    const bool slides =
        by_type ? *by_type : use_sliding_window && static_cast<int64_t>(i) >= config.integer("max_window_layers");
    if (slides) model.layers[i].sliding_window = config.integer("sliding_window");
  }
}

std::vector<bool> slides_by_gguf(const GgufFile& file, const std::string& architecture, size_t layers, int64_t usual) {
  const std::string key = architecture + ".attention.sliding_window_pattern";
  const auto found = file.metadata().find(key);
  if (found != file.metadata().end())
    if (const auto* listed = std::get_if<std::vector<bool>>(&found->second)) {
      if (listed->size() == layers) return *listed;
      throw ConfigError(key, "expected true or false for each of " + std::to_string(layers) + " layers, found " +
                                 std::to_string(listed->size()) + " of them");
    }
  const int64_t pattern = found == file.metadata().end() ? usual : file.get_integer(key, 1, INT32_MAX);
  std::vector<bool> slides;
  for (size_t i = 0; i < layers; ++i) slides.push_back((static_cast<int64_t>(i) + 1) % pattern != 0);
  return slides;
}

}  // namespace lathe::nn
