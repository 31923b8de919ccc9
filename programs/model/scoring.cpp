#include "programs/model/scoring.h"

#include <nlohmann/json.hpp>

#include "core/error.h"

namespace lathe::programs {
std::string trimmed(const std::string& text) {
  const char* blanks = " \t\r\n";
  const size_t begin = text.find_first_not_of(blanks);
  return begin == std::string::npos ? "" : text.substr(begin, text.find_last_not_of(blanks) - begin + 1);
}

Metric parse_metric(const std::string& text) {
  if (text == "json") return Metric::json;
  if (text == "exact") return Metric::exact;
  throw ConfigError("metric", "expected json or exact, found " + text);
}

bool matches(Metric metric, const std::string& answer, const std::string& reference) {
  if (metric == Metric::exact) return trimmed(answer) == trimmed(reference);
  const auto expected = nlohmann::json::parse(reference, nullptr, false);
  if (expected.is_discarded()) throw FormatError("the reference answer", -1, "is no JSON: " + reference + "; use --metric exact");
  const auto found = nlohmann::json::parse(answer, nullptr, false);
  return !found.is_discarded() && found == expected;
}

}  // namespace lathe::programs
