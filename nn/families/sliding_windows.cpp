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

}  // namespace lathe::nn
