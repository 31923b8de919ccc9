#include "train/settings/adapter_settings.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "core/error.h"
#include "nn/weights/peft.h"

namespace lathe::train {

std::optional<std::vector<int64_t>> listed_layers(const std::string& text) {
  std::vector<int64_t> layers;
  for (const std::string& name : list_parts(text)) {
    int32_t layer = 0;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), layer);
    if (error != std::errc{} || end != name.data() + name.size() || layer < 0) return std::nullopt;
    layers.push_back(layer);
  }
  return layers;
}

Fields adapter_fields(AdapterSettings& s) {
  constexpr auto group = Group::adapter;
  constexpr auto result = Shapes::result;
  return {
      {"use_peft", group, "train an adapter; false trains every weight", result, &s.use_peft},
      {"adapter", group, "PEFT adapter directory to train further (its own rank and targets count)", Shapes::run,
       &s.adapter},
      {"lora_r", group, "rank", result, &s.lora_r},
      {"lora_alpha", group, "scale: alpha / r", result, &s.lora_alpha},
      {"lora_dropout", group, "share of the adapter's inputs dropped while training", result, &s.lora_dropout},
      {"lora_target_modules", group, "all-linear, names such as q_proj,v_proj, or a regular expression for whole names",
       result, &s.lora_target_modules, Values::several},
      {"use_rslora", group, "scale: alpha / √r", result, &s.use_rslora},
      {"use_dora", group, "train the norm of each weight's rows beside their direction", result, &s.use_dora},
      {"exclude_modules", group, "names or a regular expression of what lora_target_modules shall leave out", result,
       &s.exclude_modules, Values::several},
      {"layers_to_transform", group, "numbers of the layers that lora_target_modules' names count in (default: all)",
       result, &s.layers_to_transform, Values::several},
      {"lora_modules_to_save", group, "lm_head, embed_tokens or both: trained whole, saved with the adapter", result,
       &s.lora_modules_to_save, Values::several},
  };
}

void check_adapter(const AdapterSettings& s, Complaints& wrong) {
  wrong.require(s.use_peft || s.adapter.empty(), "adapter", "has no use with use_peft false");
  wrong.require_positive("lora_r", s.lora_r);
  wrong.require(std::isfinite(s.lora_alpha), "lora_alpha", "must be a number");
  wrong.require_below_one("lora_dropout", s.lora_dropout);
  wrong.require(s.lora_target_modules.find_first_not_of(", \t\r\n") != std::string::npos, "lora_target_modules",
                "is empty");
  wrong.require(listed_layers(s.layers_to_transform).has_value(), "layers_to_transform",
                "'" + s.layers_to_transform + "' is no list of layer numbers such as 0,1,2");
  try {
    nn::saved_modules(list_parts(s.lora_modules_to_save));
  } catch (const ConfigError&) {
    wrong.add("lora_modules_to_save", "'" + s.lora_modules_to_save + "': expected lm_head, embed_tokens or both");
  }
}

}  // namespace lathe::train
