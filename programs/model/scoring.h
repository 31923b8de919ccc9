// How an answer is held against the reference.
#pragma once

#include <string>

namespace lathe::programs {

enum class Metric { json, exact };
Metric parse_metric(const std::string& text);  // "json", "exact"; ConfigError

// json: both parse and are equal as JSON values (the order of keys and spaces do not count). exact: the same text but
// for white space at both ends. An answer that is no JSON is wrong; so is a reference that is none a FormatError.
bool matches(Metric metric, const std::string& answer, const std::string& reference);

// Without white space at both ends.
std::string trimmed(const std::string& text);

}  // namespace lathe::programs
