#include "train/settings/field.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <map>

#include "core/error.h"

namespace lathe::train {
namespace {

template <class... Cases>
struct Overloaded : Cases... {
  using Cases::operator()...;
};
template <class... Cases>
Overloaded(Cases...) -> Overloaded<Cases...>;  // clang deduces it by itself from 17 on

std::string quoted_if_needed(const std::string& text) {
  const bool plain = !text.empty() && std::all_of(text.begin(), text.end(), [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '_' || c == '/' || c == '.' || c == '-' || c == '+';
  }) && text[0] != '-';
  if (plain) return text;
  std::string quoted = "'";
  for (const char c : text) quoted += c == '\'' ? "''" : std::string(1, c);
  return quoted + "'";
}

bool parse_bool(const std::string& name, const std::string& text) {
  std::string lower = text;
  std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) { return std::tolower(c); });
  if (lower.empty() || lower == "true" || lower == "yes" || lower == "on" || lower == "1") return true;
  if (lower == "false" || lower == "no" || lower == "off" || lower == "0") return false;
  throw ConfigError(name, "expected true or false, found '" + text + "'");
}

template <class Number>
Number parse_number(const std::string& name, const std::string& text) {
  Number value{};
  const char* end = text.data() + text.size();
  const auto result = std::from_chars(text.data(), end, value);
  if (result.ec != std::errc{} || result.ptr != end)
    throw ConfigError(name, std::string("expected ") + (std::is_integral_v<Number> ? "a whole number" : "a number") +
                                ", found '" + text + "'");
  return value;
}

// Of a field that a file is not to decide.
std::string open_text(const Field& field) { return std::holds_alternative<bool*>(field.target) ? "false" : "null"; }

}  // namespace

std::string_view name_of(Group group) {
  switch (group) {
    case Group::model_and_data: return "Model and data";
    case Group::adapter: return "Adapter (LoRA)";
    case Group::optimisation: return "Optimisation";
    case Group::memory: return "Memory and dtype";
    case Group::records: return "Records and checkpoints";
  }
  return "";
}

Fields composed(std::initializer_list<Fields> tables) {
  Fields fields;
  for (const Fields& table : tables) fields.insert(fields.end(), table.begin(), table.end());
  std::stable_sort(fields.begin(), fields.end(), [](const Field& a, const Field& b) { return a.group < b.group; });
  return fields;
}

std::string text_of(const Field& field) {
  const auto truth = [](bool value) { return std::string(value ? "true" : "false"); };
  return std::visit(
      Overloaded{
          [&](const bool* value) { return truth(*value); }, [](const int64_t* value) { return std::to_string(*value); },
          [](const double* value) { return number_text(*value); },
          [](const std::string* value) { return value->empty() ? "null" : quoted_if_needed(*value); },
          [&](const std::optional<bool>* value) { return *value ? truth(**value) : "null"; },
          [](const std::optional<double>* value) { return *value ? number_text(**value) : std::string("null"); }},
      field.target);
}

void set_from_text(const Field& field, const std::string& text) {
  std::visit(Overloaded{[&](bool* value) { *value = parse_bool(field.name, text); },
                        [&](int64_t* value) { *value = parse_number<int64_t>(field.name, text); },
                        [&](double* value) { *value = parse_number<double>(field.name, text); },
                        [&](std::string* value) { *value = text; },
                        [&](std::optional<bool>* value) { *value = parse_bool(field.name, text); },
                        [&](std::optional<double>* value) { *value = parse_number<double>(field.name, text); }},
             field.target);
}

void Complaints::add(const std::string& key, const std::string& reason) {
  if (text_.empty()) first_key_ = key;
  text_ += (text_.empty() ? "" : "\n  " + key + ": ") + reason;
}

void Complaints::raise() const {
  if (!text_.empty()) throw ConfigError(first_key_, text_);
}

void Complaints::require_positive(const std::string& key, int64_t value) {
  require(value > 0, key, "must be at least 1, found " + std::to_string(value));
}

void Complaints::require_not_negative(const std::string& key, double value) {
  require(value >= 0 && std::isfinite(value), key, "must be 0 or more, found " + std::to_string(value));
}

void Complaints::require_below_one(const std::string& key, double value) {
  require(value >= 0 && value < 1, key, "must be in [0, 1), found " + std::to_string(value));
}

std::vector<std::string> list_parts(const std::string& list) {
  constexpr const char* separators = ", \t\r\n";
  std::vector<std::string> parts;
  for (size_t begin = 0; (begin = list.find_first_not_of(separators, begin)) != std::string::npos;) {
    const size_t end = std::min(list.find_first_of(separators, begin), list.size());
    parts.push_back(list.substr(begin, end - begin));
    begin = end;
  }
  return parts;
}

bool one_of(std::string_view value, std::initializer_list<std::string_view> choices) {
  return std::find(choices.begin(), choices.end(), value) != choices.end();
}

void set_fields(const Fields& fields, const NamedValues& values, const std::string& method, Complaints& wrong) {
  std::map<std::string, const Field*> by_name;
  for (const Field& field : fields) by_name.emplace(field.name, &field);
  for (const auto& [name, text] : values) {
    const auto found = by_name.find(name);
    if (found == by_name.end()) {
      wrong.add(name, "is no setting of " + method);
      continue;
    }
    try {
      set_from_text(*found->second, text);
    } catch (const ConfigError& error) {
      wrong.add(name, std::string(error.what()).substr(name.size() + 2));
    }
  }
}

std::string yaml_of(const Fields& fields, const std::string& command) {
  std::string yaml = "# lathe-train " + command + " --config THIS_FILE repeats this run.\n";
  std::optional<Group> group;
  for (const Field& field : fields) {
    if (field.group != group) yaml += "\n# " + std::string(name_of(field.group)) + "\n";
    group = field.group;
    const bool open = field.shapes == Shapes::call;
    yaml += field.name + ": " + (open ? open_text(field) : text_of(field)) + "\n";
  }
  return yaml;
}

NamedValues result_values(const Fields& fields) {
  NamedValues values;
  for (const Field& field : fields)
    if (field.shapes == Shapes::result) values.emplace_back(field.name, text_of(field));
  return values;
}

std::string number_text(double value) {
  char buffer[32];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value).ptr;
  return {buffer, end};
}

}  // namespace lathe::train
