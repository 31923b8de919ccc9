// Which linears a LoRA configuration targets, and with which rank and scaling: PEFT's rules
// (peft/tuners/tuners_utils.py, check_target_module_exists; peft/utils/other.py, get_pattern_key).
#include <algorithm>
#include <charconv>
#include <cmath>

#include "core/error.h"
#include "core/regex.h"
#include "nn/weights/peft.h"

namespace lathe::nn {
namespace {

Regex compiled(const std::string& key, const std::string& pattern) { return Regex(python_pattern(pattern), key); }

// A list entry names a module exactly or by the end of its path.
bool named(std::string_view module, const std::vector<std::string>& entries) {
  return std::any_of(entries.begin(), entries.end(), [&](const std::string& entry) {
    return module == entry ||
           (module.size() > entry.size() && module.ends_with(entry) && module[module.size() - entry.size() - 1] == '.');
  });
}

// rank_pattern and alpha_pattern: (.*\.)?key at the whole name.
template <class T>
const T* pattern_value(const char* key, const std::vector<std::pair<std::string, T>>& patterns,
                       std::string_view module) {
  for (const auto& [pattern, value] : patterns)
    if (compiled(key, "(.*\\.)?(" + pattern + ")").matches_all(module)) return &value;
  return nullptr;
}

// The number of the module's layer: of the first part of its name that is a number, after one of the pattern's names.
std::optional<int64_t> layer_of(std::string_view module, const std::vector<std::string>& patterns) {
  std::string digits;
  bool found = false;
  if (patterns.empty())
    found = compiled("layers_pattern", R"(.*?\.[^.]*\.(?P<idx>\d+)\.)").match_group(module, "idx", digits);
  for (size_t i = 0; i < patterns.size() && !found; ++i)
    found = compiled("layers_pattern", "(?:^|.*?\\.)" + patterns[i] + "\\.(?P<idx>\\d+)\\.")
                .match_group(module, "idx", digits);
  int64_t layer = 0;
  if (!found || std::from_chars(digits.data(), digits.data() + digits.size(), layer).ec != std::errc{})
    return std::nullopt;
  return layer;
}

}  // namespace

int64_t LoraConfig::rank_of(std::string_view module) const {
  const int64_t* found = pattern_value("rank_pattern", rank_pattern, module);
  return found ? *found : r;
}

double LoraConfig::scaling_of(std::string_view module) const {
  const double* found = pattern_value("alpha_pattern", alpha_pattern, module);
  const double alpha = found ? *found : lora_alpha, rank = static_cast<double>(rank_of(module));
  return use_rslora ? alpha / std::sqrt(rank) : alpha / rank;
}

std::vector<std::string> LoraConfig::without_effect(const std::vector<std::string>& modules) const {
  std::vector<std::string> sentences;
  const auto check = [&](const char* key, const std::string& pattern) {
    const Regex regex = compiled(key, "(.*\\.)?(" + pattern + ")");
    if (std::none_of(modules.begin(), modules.end(),
                     [&](const std::string& module) { return targets(module) && regex.matches_all(module); }))
      sentences.push_back(std::string(key) + ": " + pattern + " matches no module that has LoRA");
  };
  for (const auto& pattern : rank_pattern) check("rank_pattern", pattern.first);
  for (const auto& pattern : alpha_pattern) check("alpha_pattern", pattern.first);
  if (exclude_modules.empty() && !exclude_modules_regex) return sentences;
  LoraConfig all = *this;
  all.exclude_modules.clear();
  all.exclude_modules_regex.reset();
  if (std::none_of(modules.begin(), modules.end(),
                   [&](const std::string& module) { return all.targets(module) && !targets(module); }))
    sentences.push_back("exclude_modules: excludes nothing that target_modules would match");
  return sentences;
}

bool LoraConfig::targets(std::string_view module) const {
  if (exclude_modules_regex && compiled("exclude_modules", *exclude_modules_regex).matches_all(module)) return false;
  if (named(module, exclude_modules)) return false;
  if (target_modules_regex) {
    if (*target_modules_regex == "all-linear") return module != output_module && module != embedding_module;
    return compiled("target_modules", *target_modules_regex).matches_all(module);
  }
  if (!named(module, target_modules)) return false;
  if (layers_to_transform.empty()) return true;
  const auto layer = layer_of(module, layers_pattern);
  return layer &&
         std::find(layers_to_transform.begin(), layers_to_transform.end(), *layer) != layers_to_transform.end();
}

bool LoraConfig::targets_parameter(std::string_view name) const { return named(name, target_parameters); }

}  // namespace lathe::nn
