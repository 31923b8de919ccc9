// Which linears a LoRA configuration targets, and with which rank and scaling: PEFT's rules.
#include <cmath>
#include <regex>

#include "core/error.h"
#include "nn/weights/peft.h"

namespace lathe::nn {
namespace {

std::regex compiled(const std::string& key, const std::string& pattern) {
  try {
    return std::regex(pattern, std::regex::ECMAScript);
  } catch (const std::regex_error& error) {
    throw ConfigError(key, "\"" + pattern + "\" is no regular expression: " + error.what());
  }
}

// A list entry names a module exactly or by the end of its path.
bool named(std::string_view module, std::string_view entry) {
  return module == entry || (module.ends_with(entry) && module[module.size() - entry.size() - 1] == '.');
}

// rank_pattern and alpha_pattern: the first key (in the configuration's order, which JSON keeps sorted) that matches
// (.*\.)?key at the whole name.
template <class T>
const T* pattern_value(const char* key, const std::map<std::string, T>& patterns, std::string_view module) {
  for (const auto& [pattern, value] : patterns)
    if (std::regex_match(module.begin(), module.end(), compiled(key, "(?:.*\\.)?(?:" + pattern + ")"))) return &value;
  return nullptr;
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

bool LoraConfig::targets(std::string_view module) const {
  if (target_modules_regex) {
    if (*target_modules_regex == "all-linear") return module != "lm_head";
    return std::regex_match(module.begin(), module.end(), compiled("target_modules", *target_modules_regex));
  }
  for (const std::string& entry : target_modules)
    if (named(module, entry)) return true;
  return false;
}

}  // namespace lathe::nn
