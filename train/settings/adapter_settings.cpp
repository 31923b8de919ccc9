#include "train/settings/adapter_settings.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "core/error.h"
#include "core/json.h"
#include "core/json_value.h"
#include "nn/lora_start.h"
#include "nn/weights/peft.h"

namespace lathe::train {
namespace {

constexpr int64_t largest_rank = 65536;

template <class Number, class Read>
std::vector<std::pair<std::string, Number>> patterns_of(const std::string& name, const std::string& text, Read read) {
  std::vector<std::pair<std::string, Number>> patterns;
  if (text.find_first_not_of(" \t\r\n") == std::string::npos) return patterns;
  try {
    const nlohmann::ordered_json json = parse_json(text, name);
    if (!json.is_object()) throw FormatError(name, -1, "found " + json_excerpt(json));
    for (const auto& [pattern, value] : json.items()) patterns.emplace_back(pattern, read(value, pattern));
  } catch (const FormatError& error) {
    throw ConfigError(name, "expected JSON such as {\"down_proj\": 8, \"layers.0.self_attn.q_proj\": 4}: " +
                                std::string(error.what()));
  }
  return patterns;
}

void check_patterns(const AdapterSettings& s, Complaints& wrong) {
  const auto check = [&](const char* name, auto patterns, const std::string& text) {
    try {
      patterns(text);
    } catch (const ConfigError& error) {
      wrong.add(name, std::string(error.what()).substr(std::string(name).size() + 2));
    }
  };
  check("rank_pattern", rank_patterns, s.rank_pattern);
  check("alpha_pattern", alpha_patterns, s.alpha_pattern);
  wrong.require(s.layers_pattern.empty() || !s.layers_to_transform.empty(), "layers_pattern",
                "says where layers_to_transform counts: give the numbers, too");
}

void check_start(const AdapterSettings& s, Complaints& wrong) {
  const auto start = nn::parse_lora_start(s.init_lora_weights);
  wrong.require(start.has_value(), "init_lora_weights",
                "'" + s.init_lora_weights +
                    "' is none of true, false, gaussian, orthogonal, olora, pissa, pissa_niter_N (such as "
                    "pissa_niter_4)");
  wrong.require(!start || !start->from_base() || !s.use_dora, "init_lora_weights",
                s.init_lora_weights + " does not go with use_dora, whose norms are those of the base");
  wrong.require(s.init_lora_weights == AdapterSettings{}.init_lora_weights || s.adapter.empty(), "init_lora_weights",
                "has no use with adapter, which has begun already");
}

}  // namespace

std::vector<std::pair<std::string, int64_t>> rank_patterns(const std::string& text) {
  return patterns_of<int64_t>("rank_pattern", text, [](const nlohmann::ordered_json& value, const std::string& key) {
    return json_integer(value, key, 1, largest_rank, "rank_pattern");
  });
}

std::vector<std::pair<std::string, double>> alpha_patterns(const std::string& text) {
  return patterns_of<double>("alpha_pattern", text, [](const nlohmann::ordered_json& value, const std::string& key) {
    return json_number(value, key, "alpha_pattern");
  });
}

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
      {"lora_target_parameters", group,
       "experts that are adapted beside these: mlp.experts.gate_up_proj, mlp.experts.down_proj (without dropout)",
       result, &s.lora_target_parameters, Values::several},
      {"use_rslora", group, "scale: alpha / √r", result, &s.use_rslora},
      {"use_dora", group, "train the norm of each weight's rows beside their direction", result, &s.use_dora},
      {"init_lora_weights", group,
       "what a new adapter begins as: true (no effect), gaussian, orthogonal, olora, pissa (the base's own largest "
       "directions), pissa_niter_4 (nearly those, found sooner) or false (at random, with effect)",
       result, &s.init_lora_weights},
      {"rank_pattern", group, "ranks that differ, as JSON: {\"down_proj\": 8}, regular expressions for ends of names",
       result, &s.rank_pattern},
      {"alpha_pattern", group, "the same for lora_alpha", result, &s.alpha_pattern},
      {"exclude_modules", group, "names or a regular expression of what lora_target_modules shall leave out", result,
       &s.exclude_modules, Values::several},
      {"layers_to_transform", group, "numbers of the layers that lora_target_modules' names count in (default: all)",
       result, &s.layers_to_transform, Values::several},
      {"layers_pattern", group, "what stands before a layer's number in its name (default: any)", result,
       &s.layers_pattern, Values::several},
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
  check_patterns(s, wrong);
  check_start(s, wrong);
  try {
    nn::saved_modules(list_parts(s.lora_modules_to_save));
  } catch (const ConfigError&) {
    wrong.add("lora_modules_to_save", "'" + s.lora_modules_to_save + "': expected lm_head, embed_tokens or both");
  }
}

}  // namespace lathe::train
