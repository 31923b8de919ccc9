// The bounds that an evaluation is held to.
#include <fmt/format.h>

#include <cmath>
#include <cstdlib>

#include "core/error.h"
#include "programs/cli/yaml_arguments.h"
#include "programs/model/evaluation.h"

namespace lathe::programs {

std::optional<double> Evaluation::find(const std::string& name) const {
  for (const auto& [key, value] : metrics)
    if (key == name) return value;
  return std::nullopt;
}

std::optional<double> share_stderr(double share, int64_t count) {
  if (count < 2) return std::nullopt;
  return std::sqrt(share * (1 - share) / static_cast<double>(count - 1));
}

std::vector<std::string> gate_failures(const std::string& file, const Evaluation& evaluation) {
  std::string measured;
  for (const auto& [name, value] : evaluation.metrics)
    if (value) measured += (measured.empty() ? "" : ", ") + name;
  std::vector<std::string> failures;
  for (const auto& [name, text] : cli::read_yaml_settings(file)) {
    char* end = nullptr;
    const double bound = std::strtod(text.c_str(), &end);
    if (text.empty() || *end != '\0' || !std::isfinite(bound))
      throw ConfigError(name, "expected a number as its bound in " + file + ", found " + text);
    const std::optional<double> value = evaluation.find(name);
    if (!value) throw ConfigError(name, "is not measured here; " + file + " may bound " + measured);
    const bool at_most = name == "loss" || name == "perplexity" || name.ends_with("_stderr");
    // What is no number passes no gate.
    if (at_most ? *value <= bound : *value >= bound) continue;
    failures.push_back(
        fmt::format("{} is {:.6g}, and must be at {} {:.6g}", name, *value, at_most ? "most" : "least", bound));
  }
  return failures;
}

}  // namespace lathe::programs
