#include "serve/http/fields.h"

#include <fmt/format.h>

#include "core/error.h"
#include "core/json.h"
#include "core/json_value.h"
#include "serve/http/api_error.h"

namespace lathe::http {

using nlohmann::ordered_json;

ordered_json parse_body(std::string_view body) {
  try {
    ordered_json value = parse_json(body, "the request's body");
    if (!value.is_object())
      throw ApiError(400, "the request's body: expected a JSON object, found " + json_excerpt(value));
    return value;
  } catch (const FormatError& error) {
    throw ApiError(400, error.what());
  }
}

Fields::Fields(const ordered_json& object, std::string path) : object_(object), path_(std::move(path)) {
  if (!object.is_object())
    throw bad_field(path_.empty() ? "body" : path_.substr(0, path_.size() - 1),
                    "expected an object, found " + json_excerpt(object));
}

const ordered_json* Fields::find(std::string_view key) const {
  const auto found = object_.find(key);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

const ordered_json& Fields::required(std::string_view key, const char* expected) const {
  const ordered_json* value = find(key);
  if (value == nullptr) throw bad_field(name_of(key), fmt::format("expected {}, but the field is missing", expected));
  return *value;
}

std::optional<int64_t> Fields::integer(std::string_view key, int64_t least, int64_t greatest) const {
  const ordered_json* value = find(key);
  if (value == nullptr) return std::nullopt;
  try {
    return json_integer(*value, name_of(key), least, greatest, "");
  } catch (const FormatError&) {
    throw bad_field(name_of(key),
                    fmt::format("expected an integer from {} to {}, found {}", least, greatest, json_excerpt(*value)));
  }
}

std::optional<double> Fields::number(std::string_view key, double least, double greatest) const {
  const ordered_json* value = find(key);
  if (value == nullptr) return std::nullopt;
  const double number = value->is_number() ? value->get<double>() : 0;
  if (!value->is_number() || !(number >= least && number <= greatest))
    throw bad_field(name_of(key),
                    fmt::format("expected a number from {} to {}, found {}", least, greatest, json_excerpt(*value)));
  return number;
}

std::optional<bool> Fields::boolean(std::string_view key) const {
  const ordered_json* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_boolean()) throw bad_field(name_of(key), "expected true or false, found " + json_excerpt(*value));
  return value->get<bool>();
}

std::optional<std::string> Fields::text(std::string_view key) const {
  const ordered_json* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_string()) throw bad_field(name_of(key), "expected a string, found " + json_excerpt(*value));
  return value->get<std::string>();
}

std::vector<std::string> Fields::texts(std::string_view key, size_t most) const {
  const ordered_json* value = find(key);
  if (value == nullptr) return {};
  if (value->is_string()) return {value->get<std::string>()};
  if (!value->is_array() || value->size() > most)
    throw bad_field(name_of(key),
                    fmt::format("expected a string or a list of up to {}, found {}", most, json_excerpt(*value)));
  std::vector<std::string> texts;
  for (const ordered_json& item : *value) {
    if (!item.is_string()) throw bad_field(name_of(key), "expected strings in the list, found " + json_excerpt(item));
    texts.push_back(item.get<std::string>());
  }
  return texts;
}

std::vector<int32_t> Fields::token_ids(std::string_view key, size_t most, int64_t vocabulary) const {
  const ordered_json* value = find(key);
  if (value == nullptr) return {};
  if (!value->is_array() || value->size() > most)
    throw bad_field(name_of(key),
                    fmt::format("expected a list of up to {} token ids, found {}", most, json_excerpt(*value)));
  std::vector<int32_t> ids;
  for (const ordered_json& item : *value) {
    try {
      ids.push_back(static_cast<int32_t>(json_integer(item, "", 0, vocabulary - 1, "")));
    } catch (const FormatError&) {
      throw bad_field(name_of(key),
                      fmt::format("expected token ids from 0 to {}, found {}", vocabulary - 1, json_excerpt(item)));
    }
  }
  return ids;
}

}  // namespace lathe::http
