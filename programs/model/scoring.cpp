#include "programs/model/scoring.h"

#include <optional>

#include "core/error.h"
#include "core/json.h"
#include "core/json_value.h"

namespace lathe::programs {
namespace {

// Nothing where the text is no JSON, or none within the bounds of core/json.
std::optional<nlohmann::json> parsed(const std::string& text) {
  try {
    return nlohmann::json(parse_json(text, "an answer"));  // keys in the order of their names: theirs does not count
  } catch (const FormatError&) {
    return std::nullopt;
  }
}

}  // namespace

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
  const auto expected = parsed(reference);
  if (!expected) throw FormatError("the reference answer", -1, "is no JSON: " + reference + "; use --metric exact");
  const auto found = parsed(answer);
  return found && *found == *expected;
}

}  // namespace lathe::programs
