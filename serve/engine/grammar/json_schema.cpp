// JSON Schema as a grammar. What a keyword means is draft 2020-12's; one that is not known here is refused by name,
// since an answer that breaks it would not be valid.
#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <set>

#include "core/json.h"
#include "core/json_value.h"
#include "serve/engine/grammar/characters.h"
#include "serve/engine/grammar/json_schema.h"
#include "serve/engine/grammar/json_values.h"
#include "serve/engine/grammar/regex.h"

namespace lathe::engine {
namespace {

using Part = GrammarBuilder::Part;
using json = nlohmann::ordered_json;
using Names = std::set<std::string_view>;

const Names annotations{"title",   "description", "default",  "examples", "deprecated",  "readOnly", "writeOnly",
                        "$schema", "$id",         "$comment", "$defs",    "definitions", "$anchor",  "discriminator"};
const Names of_strings{"minLength", "maxLength", "pattern", "format"};
const Names of_numbers{"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"};
const Names of_arrays{"items", "prefixItems", "minItems", "maxItems"};
const Names of_objects{"properties", "required", "additionalProperties"};
const char* const all_types[] = {"object", "array", "string", "number", "integer", "boolean", "null"};

// Formats as expressions; days that a month does not have are let through by none.
const std::map<std::string_view, std::string_view> formats{
    {"date",
     "(\\d{4}-((0[13578]|1[02])-(0[1-9]|[12]\\d|3[01])|(0[469]|11)-(0[1-9]|[12]\\d|30)|02-(0[1-9]|1\\d|2[0-8])))"},
    {"time", "([01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(\\.\\d{1,6})?(Z|[+-]([01]\\d|2[0-3]):[0-5]\\d)"},
    {"uuid", "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"},
    {"ipv4", "((25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)\\.){3}(25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)"},
    {"email",
     "[A-Za-z0-9_]([A-Za-z0-9_+-]|\\.[A-Za-z0-9_+-]){0,62}@([a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?\\.){1,4}[a-z]{2,16}"}};

// What a "#/$defs/name" points to.
const json* find(const json& root, const std::string& reference) {
  if (reference == "#") return &root;
  if (!reference.starts_with("#/")) return nullptr;
  try {
    const json::json_pointer pointer(reference.substr(1));
    return root.contains(pointer) ? &root.at(pointer) : nullptr;
  } catch (const json::exception&) {
    return nullptr;
  }
}

class SchemaReader {
 public:
  SchemaReader(GrammarBuilder& builder, const json& root) : builder_(builder), root_(root) {}

  // A rule for the whole schema.
  int32_t read() {
    const int32_t root = builder_.new_rule();
    rules_.emplace("#", root);
    builder_.define(root, value(root_, "#"));
    return root;
  }
  Part read(const json& schema, const std::string& path) { return value(schema, path); }

 private:
  [[noreturn]] void fail(const std::string& path, const std::string& reason) const {
    builder_.fail(path + ": " + reason);
  }
  void allow(const json& schema, const std::string& path, std::initializer_list<const Names*> known) const {
    for (const auto& [key, unused] : schema.items())
      if (std::ranges::none_of(known, [&, name = key](const Names* names) { return names->contains(name); }))
        fail(path, "the keyword '" + key + "' is not supported here");
  }

  // A value that satisfies the schema; `path` is where it stands, as a JSON pointer after '#'.
  Part value(const json& schema, const std::string& path) {
    if (nesting_ == max_json_nesting) fail(path, "schemas nest deeper than " + std::to_string(max_json_nesting));
    ++nesting_;
    const Part part = value_within(schema, path);
    --nesting_;
    return part;
  }

  Part value_within(const json& schema, const std::string& path) {
    if (schema.is_boolean() && schema.get<bool>()) return builder_.call(any().value);
    if (!schema.is_object()) fail(path, "expected a schema, an object, found " + json_excerpt(schema));
    static const Names reference{"$ref"}, one_of_values{"enum", "const", "type"}, choices{"anyOf", "oneOf"},
        all{"allOf"}, type{"type"};
    if (schema.contains("$ref")) {
      allow(schema, path, {&annotations, &reference});
      return builder_.call(rule_of(schema["$ref"], path));
    }
    if (schema.contains("enum") || schema.contains("const")) {
      allow(schema, path, {&annotations, &one_of_values});
      return one_of(schema, path);
    }
    if (schema.contains("anyOf") || schema.contains("oneOf")) {
      allow(schema, path, {&annotations, &choices});
      return any_of(schema, path);
    }
    if (schema.contains("allOf")) {
      allow(schema, path, {&annotations, &all});
      if (!schema["allOf"].is_array() || schema["allOf"].size() != 1)
        fail(path, "'allOf' is supported with one schema alone");
      return value(schema["allOf"][0], path + "/allOf/0");
    }
    allow(schema, path, {&annotations, &type, &of_strings, &of_numbers, &of_arrays, &of_objects});
    std::vector<Part> parts;
    const std::vector<std::string> types = types_of(schema, path);
    if (types.empty()) return builder_.call(any().value);
    for (const std::string& name : types) parts.push_back(of_type(name, schema, path));
    return builder_.any_of(parts);
  }

  // The types that the schema names, or that its keywords speak of; none: every type, whatever it is.
  std::vector<std::string> types_of(const json& schema, const std::string& path) const {
    std::vector<std::string> types;
    if (!schema.contains("type")) {
      for (const auto& [names, type] :
           {std::pair{&of_objects, "object"}, {&of_arrays, "array"}, {&of_strings, "string"}, {&of_numbers, "number"}})
        for (const std::string_view name : *names)
          if (schema.contains(name)) {
            types.emplace_back(type);
            break;
          }
      return types;
    }
    const json& named = schema["type"];
    for (const json& name : named.is_array() ? named : json::array({named})) {
      if (!name.is_string() || std::ranges::find(all_types, name.get<std::string>()) == std::end(all_types))
        fail(path,
             "expected a type (object, array, string, number, integer, boolean, null), found " + json_excerpt(name));
      if (std::ranges::find(types, name.get<std::string>()) == types.end()) types.push_back(name);
    }
    if (types.empty()) fail(path, "'type' names none");
    return types;
  }

  Part of_type(const std::string& type, const json& schema, const std::string& path) {
    if (type == "object") return object(schema, path);
    if (type == "array") return array(schema, path);
    if (type == "string") return string(schema, path);
    if (type == "integer") return json_integer(builder_, bounds(schema, path, true));
    if (type == "number") return json_number(builder_, bounds(schema, path, false));
    if (type == "null") return builder_.text("null");
    return builder_.any_of({builder_.text("true"), builder_.text("false")});
  }

  static bool is_of_type(const json& value, const std::string& type) {
    if (type == "object") return value.is_object();
    if (type == "array") return value.is_array();
    if (type == "string") return value.is_string();
    if (type == "number") return value.is_number();
    if (type == "integer")
      return value.is_number_integer() ||
             (value.is_number_float() && std::trunc(value.get<double>()) == value.get<double>());
    return type == "null" ? value.is_null() : value.is_boolean();
  }

  Part one_of(const json& schema, const std::string& path) {
    json values = schema.contains("const") ? json::array({schema["const"]}) : schema["enum"];
    if (!values.is_array() || values.empty()) fail(path, "expected 'enum' to be a list of values");
    if (schema.contains("const") && schema.contains("enum")) fail(path, "'enum' beside 'const' is not supported");
    const std::vector<std::string> types = types_of(schema, path);
    std::vector<Part> parts;
    for (const json& value : values)
      if (types.empty() || std::ranges::any_of(types, [&](const auto& type) { return is_of_type(value, type); }))
        parts.push_back(builder_.text(value.dump()));
    if (parts.empty()) fail(path, "no value of 'enum' is of the type");
    return builder_.any_of(parts);
  }

  Part any_of(const json& schema, const std::string& path) {
    if (schema.contains("anyOf") && schema.contains("oneOf")) fail(path, "'anyOf' beside 'oneOf' is not supported");
    const char* const keyword = schema.contains("anyOf") ? "anyOf" : "oneOf";
    const json& schemas = schema[keyword];
    if (!schemas.is_array() || schemas.empty())
      fail(path, std::string("expected '") + keyword + "' to be a list of schemas");
    if (schema.contains("oneOf") && !exclude_each_other(schemas))
      fail(path,
           "'oneOf' is supported where the schemas have different types, or objects with a required property of "
           "different constants; else say 'anyOf'");
    std::vector<Part> parts;
    for (size_t i = 0; i < schemas.size(); ++i)
      parts.push_back(value(schemas[i], path + "/" + keyword + "/" + std::to_string(i)));
    return builder_.any_of(parts);
  }

  // Whether no value satisfies two of them, as far as that shows at a glance.
  bool exclude_each_other(const json& schemas) const {
    for (size_t i = 0; i < schemas.size(); ++i)
      for (size_t j = i + 1; j < schemas.size(); ++j)
        if (!exclude_each_other(resolved(root_, schemas[i]), resolved(root_, schemas[j]))) return false;
    return true;
  }
  static bool exclude_each_other(const json& a, const json& b) {
    if (!a.is_object() || !b.is_object()) return false;
    const std::string type_a = a.contains("type") && a["type"].is_string() ? a["type"] : json("");
    const std::string type_b = b.contains("type") && b["type"].is_string() ? b["type"] : json("");
    if (type_a.empty() || type_b.empty()) return false;
    const auto number = [](const std::string& type) { return type == "number" || type == "integer"; };
    if (type_a != type_b) return !number(type_a) || !number(type_b);
    if (type_a != "object" || !a.contains("properties") || !a["properties"].is_object()) return false;
    for (const auto& [name, property] : a["properties"].items()) {
      const std::optional<json> mine = required_constant(a, name), theirs = required_constant(b, name);
      if (mine && theirs && *mine != *theirs) return true;
    }
    return false;
  }
  static std::optional<json> required_constant(const json& schema, const std::string& name) {
    if (!schema.contains("required") || !schema["required"].is_array() || !schema.contains("properties") ||
        !schema["properties"].is_object() || !schema["properties"].contains(name))
      return {};
    if (std::ranges::find(schema["required"], json(name)) == schema["required"].end()) return {};
    const json& property = schema["properties"][name];
    if (!property.is_object()) return {};
    if (property.contains("const")) return property["const"];
    if (property.contains("enum") && property["enum"].is_array() && property["enum"].size() == 1)
      return property["enum"][0];
    return {};
  }
  int32_t rule_of(const json& reference, const std::string& path) {
    const json* const found = reference.is_string() ? find(root_, reference) : nullptr;
    if (found == nullptr)
      fail(path, "'$ref' " + json_excerpt(reference) + " does not lead to a place in this schema (\"#/$defs/…\")");
    const std::string name = reference;
    const auto known = rules_.find(name);
    if (known != rules_.end()) return known->second;
    const int32_t rule = builder_.new_rule();
    rules_.emplace(name, rule);
    builder_.define(rule, value(*found, name));
    return rule;
  }

  const AnyJson& any() {
    if (!any_) any_ = define_any_json(builder_);
    return *any_;
  }

  int64_t count(const json& schema, const char* key, int64_t otherwise, const std::string& path) const {
    if (!schema.contains(key)) return otherwise;
    const json& value = schema[key];
    if (!value.is_number_integer() || value.get<int64_t>() < 0)
      fail(path, std::string("expected '") + key + "' to be an integer from 0 on, found " + json_excerpt(value));
    return value.get<int64_t>();
  }

  NumberBounds bounds(const json& schema, const std::string& path, bool integers) const {
    NumberBounds result;
    for (const char* const key : {"minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"}) {
      if (!schema.contains(key)) continue;
      const std::string_view name = key;
      const json& value = schema[key];
      const bool lower = name.ends_with("inimum"), exclusive = name.starts_with("exclusive");
      if (!value.is_number())
        fail(path, "expected '" + std::string(key) + "' to be a number, found " + json_excerpt(value));
      const double number = value.get<double>();
      if (!integers && (exclusive || std::trunc(number) != number))
        fail(path, "'" + std::string(key) + "' of a number is supported inclusive and as an integer alone, found " +
                       json_excerpt(value));
      if (std::abs(number) > static_cast<double>(most_integer)) continue;  // beyond the digits that are written
      int64_t bound = static_cast<int64_t>(lower ? std::ceil(number) : std::floor(number));
      if (exclusive && static_cast<double>(bound) == number) bound += lower ? 1 : -1;
      std::optional<int64_t>& place = lower ? result.least : result.most;
      place = !place ? bound : lower ? std::max(*place, bound) : std::min(*place, bound);
    }
    if (result.least && result.most && *result.least > *result.most) fail(path, "its bounds leave no number");
    return result;
  }

  Part string(const json& schema, const std::string& path) {
    const bool counted = schema.contains("minLength") || schema.contains("maxLength");
    if (counted + schema.contains("pattern") + schema.contains("format") > 1)
      fail(path, "of lengths, 'pattern' and 'format' one is supported at a time");
    const auto quoted = [&](std::string_view pattern, RegexMatch match) {
      const Part text = regex_part(builder_, pattern, match, json_character);
      return builder_.sequence({builder_.text("\""), text, builder_.text("\"")});
    };
    if (schema.contains("pattern")) {
      if (!schema["pattern"].is_string()) fail(path, "expected 'pattern' to be a string");
      return quoted(schema["pattern"].get<std::string>(), RegexMatch::anywhere);
    }
    if (schema.contains("format")) {
      const std::string format = schema["format"].is_string() ? schema["format"] : json("");
      if (format == "date-time")
        return quoted(std::string(formats.at("date")) + "T" + std::string(formats.at("time")), RegexMatch::whole);
      const auto known = formats.find(format);
      if (known == formats.end())
        fail(path, "the format " + json_excerpt(schema["format"]) +
                       " is not supported (date, time, date-time, uuid, ipv4 and email are)");
      return quoted(known->second, RegexMatch::whole);
    }
    const int64_t least = count(schema, "minLength", 0, path), most = count(schema, "maxLength", -1, path);
    if (most >= 0 && least > most) fail(path, "'minLength' is above 'maxLength'");
    return json_string(builder_, least, most);
  }

  Part array(const json& schema, const std::string& path) {
    const int64_t least = count(schema, "minItems", 0, path);
    int64_t most = count(schema, "maxItems", -1, path);
    if (most >= 0 && least > most) fail(path, "'minItems' is above 'maxItems'");
    const auto around = [&](Part inside) {
      return builder_.sequence(
          {builder_.text("["), json_blank(builder_), inside, json_blank(builder_), builder_.text("]")});
    };
    if (schema.contains("prefixItems")) return around(tuple(schema, least, most, path));
    if (schema.contains("items") && schema["items"] == json(false)) most = 0;
    if (most == 0) return around(builder_.empty());
    const int32_t item = builder_.new_rule();
    builder_.define(item,
                    schema.contains("items") ? value(schema["items"], path + "/items") : builder_.call(any().value));
    return around(json_list(builder_, least, most, [&] { return builder_.call(item); }));
  }

  // Every item of 'prefixItems', and then no other.
  Part tuple(const json& schema, int64_t least, int64_t most, const std::string& path) {
    const json& items = schema["prefixItems"];
    if (!items.is_array() || items.empty()) fail(path, "expected 'prefixItems' to be a list of schemas");
    const auto size = static_cast<int64_t>(items.size());
    if (least > size || (most >= 0 && most < size) || (schema.contains("items") && schema["items"] != json(false)))
      fail(path, "'prefixItems' is supported where these are all items: with \"items\": false, or without it");
    std::vector<Part> parts;
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) parts.push_back(builder_.sequence({builder_.text(","), json_blank(builder_)}));
      parts.push_back(value(items[i], path + "/prefixItems/" + std::to_string(i)));
    }
    return builder_.sequence(parts);
  }

  // Properties in order. `before` are the states where nothing has been written yet, `after` those where a comma comes
  // next; a property is one part that both lead into.
  Part object(const json& schema, const std::string& path) {
    const json properties = schema.value("properties", json::object());
    if (!properties.is_object()) fail(path, "expected 'properties' to be an object");
    const std::set<std::string> required = required_names(schema, properties, path);
    const auto member = [&](Part name, Part member_value) {
      return builder_.sequence({name, builder_.text(":"), json_blank(builder_), member_value});
    };
    int32_t before = builder_.new_state(), after = builder_.new_state();
    const int32_t first = before;
    const auto enter = [&](Part part) {
      const Part comma = builder_.sequence({builder_.text(","), json_blank(builder_)});
      builder_.link(before, part.start);
      builder_.link(after, comma.start);
      builder_.link(comma.end, part.start);
    };
    for (const auto& [name, property] : properties.items()) {
      const Part part = member(builder_.text(json(name).dump()), value(property, path + "/properties/" + name));
      enter(part);
      const int32_t next_before = builder_.new_state(), next_after = builder_.new_state();
      builder_.link(part.end, next_after);
      if (!required.contains(name)) {
        builder_.link(before, next_before);
        builder_.link(after, next_after);
      }
      before = next_before;
      after = next_after;
    }
    const json additional =
        schema.value("additionalProperties", json(properties.empty() && !schema.contains("properties")));
    if (additional != json(false)) {
      std::vector<std::string> names;
      for (const auto& [name, property] : properties.items()) names.push_back(name);
      const Part part =
          member(json_string_other_than(builder_, names), value(additional, path + "/additionalProperties"));
      enter(part);
      builder_.link(part.end, after);
    }
    const int32_t end = builder_.new_state();
    builder_.link(before, end);
    builder_.link(after, end);
    return builder_.sequence(
        {builder_.text("{"), json_blank(builder_), {first, end}, json_blank(builder_), builder_.text("}")});
  }

  std::set<std::string> required_names(const json& schema, const json& properties, const std::string& path) const {
    std::set<std::string> names;
    if (!schema.contains("required")) return names;
    if (!schema["required"].is_array()) fail(path, "expected 'required' to be a list of names");
    for (const json& name : schema["required"]) {
      if (!name.is_string() || !properties.contains(name.get<std::string>()))
        fail(path, "'required' names " + json_excerpt(name) + ", which is none of the properties");
      names.insert(name);
    }
    return names;
  }

  GrammarBuilder& builder_;
  const json& root_;
  std::map<std::string, int32_t> rules_;  // by reference
  std::optional<AnyJson> any_;
  int nesting_ = 0;
};

}  // namespace

int32_t define_schema(GrammarBuilder& builder, const json& schema) { return SchemaReader(builder, schema).read(); }

Part schema_within(GrammarBuilder& builder, const json& root, const json& schema, const std::string& path) {
  return SchemaReader(builder, root).read(schema, path);
}

const json& resolved(const json& root, const json& schema) {
  const json* at = &schema;
  for (int hops = 0; hops < max_json_nesting && at->is_object() && at->contains("$ref"); ++hops) {
    const json& reference = (*at)["$ref"];
    const json* const found = reference.is_string() ? find(root, reference) : nullptr;
    if (found == nullptr) break;
    at = found;
  }
  return *at;
}

std::shared_ptr<const Grammar> json_schema_grammar(const json& schema) {
  GrammarBuilder builder("json_schema");
  define_schema(builder, schema);
  return builder.finish("json_schema " + schema.dump());
}

std::shared_ptr<const Grammar> json_object_grammar() {
  GrammarBuilder builder("json_object");
  const int32_t root = builder.new_rule();
  const AnyJson any = define_any_json(builder);
  builder.define(root, builder.call(any.object));
  return builder.finish("json_object");
}

}  // namespace lathe::engine
