#include "train/grpo/rewards/json_schema.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <vector>

#include "core/error.h"
#include "core/json.h"
#include "core/json_value.h"
#include "core/regex.h"

namespace lathe::train {

using nlohmann::ordered_json;

struct JsonSchema::Node {
  std::optional<bool> always;  // the schemas true and false
  std::vector<std::string> types;
  std::optional<ordered_json> one_of_values;  // enum, or const as a list of one
  std::map<std::string, std::unique_ptr<Node>> properties;
  std::vector<std::string> required;
  bool additional_properties = true;
  std::unique_ptr<Node> items;
  std::optional<double> minimum, maximum;
  std::optional<size_t> min_items, max_items, min_length, max_length;
  std::unique_ptr<Regex> pattern;

  bool accepts(const ordered_json& value) const;
};

namespace {

const std::vector<std::string> type_names = {"null", "boolean", "object", "array", "number", "string", "integer"};

bool has_type(const ordered_json& value, const std::string& type) {
  if (type == "null") return value.is_null();
  if (type == "boolean") return value.is_boolean();
  if (type == "object") return value.is_object();
  if (type == "array") return value.is_array();
  if (type == "number") return value.is_number();
  if (type == "string") return value.is_string();
  // 2.0 is an integer there.
  return value.is_number_integer() ||
         (value.is_number_float() && std::trunc(value.get<double>()) == value.get<double>());
}

size_t characters_of(const std::string& text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](unsigned char c) { return (c & 0xC0) != 0x80; }));
}

bool within(size_t count, const std::optional<size_t>& least, const std::optional<size_t>& most) {
  return count >= least.value_or(0) && (!most || count <= *most);
}

// Reads one schema; `place` is its path, for errors.
class Reading {
 public:
  explicit Reading(std::string file) : file_(std::move(file)) {}

  template <class Node>
  std::unique_ptr<Node> node(const ordered_json& schema, const std::string& place) const {
    auto node = std::make_unique<Node>();
    if (schema.is_boolean()) {
      node->always = schema.get<bool>();
      return node;
    }
    if (!schema.is_object()) fail(place, "must be an object, true or false");
    for (const auto& [key, value] : schema.items()) {
      const std::string at = place + "/" + key;
      if (key == "title" || key == "description" || key == "$schema" || key == "$id") continue;
      if (key == "type")
        node->types = types(value, at);
      else if (key == "enum")
        node->one_of_values = list(value, at);
      else if (key == "const")
        node->one_of_values = ordered_json::array({value});
      else if (key == "required")
        node->required = names(value, at);
      else if (key == "items")
        node->items = this->node<Node>(value, at);
      else if (key == "minimum")
        node->minimum = number(value, at);
      else if (key == "maximum")
        node->maximum = number(value, at);
      else if (key == "minItems")
        node->min_items = size(value, at);
      else if (key == "maxItems")
        node->max_items = size(value, at);
      else if (key == "minLength")
        node->min_length = size(value, at);
      else if (key == "maxLength")
        node->max_length = size(value, at);
      else if (key == "pattern")
        node->pattern = std::make_unique<Regex>(string(value, at), file_ + at);
      else if (key == "additionalProperties")
        node->additional_properties = truth(value, at);
      else if (key == "properties") {
        if (!value.is_object()) fail(at, "must be an object");
        for (const auto& [name, property] : value.items())
          node->properties[name] = this->node<Node>(property, at + "/" + name);
      } else {
        fail(at,
             "is a keyword that is not understood here; the reward knows type, enum, const, properties, required, "
             "additionalProperties (true or false), items, minItems, maxItems, minLength, maxLength, pattern, "
             "minimum and maximum. A --reward_command can check anything");
      }
    }
    return node;
  }

 private:
  [[noreturn]] void fail(const std::string& place, const std::string& reason) const {
    throw ConfigError("reward_json_schema", file_ + ": " + (place.empty() ? "the schema" : place) + " " + reason);
  }
  ordered_json list(const ordered_json& value, const std::string& at) const {
    if (!value.is_array() || value.empty()) fail(at, "must be a list with something in it");
    return value;
  }
  std::string string(const ordered_json& value, const std::string& at) const {
    if (!value.is_string()) fail(at, "must be a string");
    return value.get<std::string>();
  }
  std::vector<std::string> names(const ordered_json& value, const std::string& at) const {
    if (!value.is_array()) fail(at, "must be a list of names");
    std::vector<std::string> all;
    for (const ordered_json& name : value) all.push_back(string(name, at));
    return all;
  }
  std::vector<std::string> types(const ordered_json& value, const std::string& at) const {
    const std::vector<std::string> all = value.is_string() ? std::vector{value.get<std::string>()} : names(value, at);
    for (const std::string& type : all)
      if (std::find(type_names.begin(), type_names.end(), type) == type_names.end())
        fail(at, "'" + type + "' is no type of JSON");
    return all;
  }
  double number(const ordered_json& value, const std::string& at) const {
    if (!value.is_number()) fail(at, "must be a number");
    return value.get<double>();
  }
  size_t size(const ordered_json& value, const std::string& at) const {
    if (!value.is_number_unsigned()) fail(at, "must be a whole number, 0 or more");
    return value.get<size_t>();
  }
  bool truth(const ordered_json& value, const std::string& at) const {
    if (!value.is_boolean()) fail(at, "must be true or false here");
    return value.get<bool>();
  }

  std::string file_;
};

}  // namespace

bool JsonSchema::Node::accepts(const ordered_json& value) const {
  if (always) return *always;
  if (!types.empty() &&
      std::none_of(types.begin(), types.end(), [&](const auto& type) { return has_type(value, type); }))
    return false;
  if (one_of_values && std::find(one_of_values->begin(), one_of_values->end(), value) == one_of_values->end())
    return false;
  if (value.is_number()) {
    const auto number = value.get<double>();
    if ((minimum && number < *minimum) || (maximum && number > *maximum)) return false;
  }
  if (value.is_string()) {
    const auto& text = value.get_ref<const std::string&>();
    size_t begin = 0, end = 0;
    if (!within(characters_of(text), min_length, max_length)) return false;
    if (pattern && !pattern->find(text, 0, begin, end)) return false;
  }
  if (value.is_array()) {
    if (!within(value.size(), min_items, max_items)) return false;
    if (items && !std::all_of(value.begin(), value.end(), [&](const auto& item) { return items->accepts(item); }))
      return false;
  }
  if (value.is_object()) {
    for (const std::string& name : required)
      if (!value.contains(name)) return false;
    for (const auto& [name, member] : value.items()) {
      const auto property = properties.find(name);
      if (property == properties.end() ? !additional_properties : !property->second->accepts(member)) return false;
    }
  }
  return true;
}

JsonSchema::JsonSchema(const ordered_json& schema, const std::string& where)
    : root_(Reading(where).node<Node>(schema, "")) {}
JsonSchema::~JsonSchema() = default;
JsonSchema::JsonSchema(JsonSchema&&) noexcept = default;
bool JsonSchema::accepts(const ordered_json& value) const { return root_->accepts(value); }

RewardFunction json_reward(const std::string& schema_file) {
  std::shared_ptr<const JsonSchema> schema;
  if (!schema_file.empty()) schema = std::make_shared<const JsonSchema>(read_json_file(schema_file), schema_file);
  return [schema](std::span<const ScoredCompletion> completions) {
    Rewards rewards;
    for (const ScoredCompletion& completion : completions) {
      bool good = false;
      try {
        const ordered_json value = parse_json(completion.text, "the completion");
        good = schema == nullptr || schema->accepts(value);
      } catch (const FormatError&) {  // no JSON
      }
      rewards.emplace_back(good ? 1.0 : 0.0);
    }
    return rewards;
  };
}

}  // namespace lathe::train
