#include "serve/engine/grammar/call_members.h"

#include <algorithm>
#include <string>
#include <vector>

#include "core/json.h"
#include "core/json_value.h"
#include "serve/engine/grammar/characters.h"
#include "serve/engine/grammar/json_schema.h"

namespace lathe::engine {
namespace {

using Part = GrammarBuilder::Part;
using json = nlohmann::ordered_json;

// Any text in which the mark does not stand. The mark's first character stands in it once, so a text that has part of
// it begun begins anew with that character alone.
Part text_without(GrammarBuilder& builder, std::string_view mark) {
  std::vector<int32_t> begun;  // the states: so many characters of the mark are the text's last ones
  for (size_t i = 0; i < mark.size(); ++i) begun.push_back(builder.new_state());
  const int32_t end = builder.new_state();
  const auto lead = [&](int32_t from, const Characters& characters, int32_t to) {
    const Part part = utf8_character(builder, characters);
    builder.link(from, part.start);
    builder.link(part.end, to);
  };
  const auto one = [](char c) { return Characters{{static_cast<uint32_t>(c), static_cast<uint32_t>(c)}}; };
  for (size_t i = 0; i < mark.size(); ++i) {
    Characters others = without(every_character(), one(mark[0]));
    if (i > 0) {
      others = without(others, one(mark[i]));
      lead(begun[i], one(mark[0]), begun[1]);
    }
    lead(begun[i], others, begun[0]);
    if (i + 1 < mark.size()) lead(begun[i], one(mark[i]), begun[i + 1]);
    builder.link(begun[i], end);
  }
  return {begun[0], end};
}

Part text_value(GrammarBuilder& builder, const json& schema, const MemberForm& form, const std::string& path) {
  const std::string_view mark = form.mark();
  if (schema.contains("enum") || schema.contains("const")) {
    const json values = schema.contains("const") ? json::array({schema["const"]}) : schema["enum"];
    std::vector<Part> parts;
    for (const json& value : values) {
      if (value.get_ref<const std::string&>().find(mark) != std::string::npos)
        builder.fail(path + ": " + json_excerpt(value) + " holds the mark by which this model ends a value");
      parts.push_back(builder.text(value.get_ref<const std::string&>()));
    }
    return builder.any_of(parts);
  }
  for (const char* keyword : {"pattern", "format", "minLength", "maxLength"})
    if (schema.contains(keyword))
      builder.fail(path + ": '" + keyword +
                   "' is not supported where strings are written as this model does, without quotes");
  return text_without(builder, mark);
}

}  // namespace

bool is_text(const json& root, const json& schema) {
  const json& found = resolved(root, schema);
  if (!found.is_object()) return false;
  if (found.contains("const")) return found["const"].is_string();
  if (found.contains("enum"))
    return found["enum"].is_array() && !found["enum"].empty() &&
           std::ranges::all_of(found["enum"], [](const json& value) { return value.is_string(); });
  return found.value("type", json()) == "string";
}

Part call_members(GrammarBuilder& builder, const json& parameters, const MemberForm& form) {
  const json& object = resolved(parameters, parameters);
  const json properties = object.is_object() ? object.value("properties", json::object()) : json();
  const json required = object.is_object() ? object.value("required", json::array()) : json();
  const bool described = object.is_object() && object.value("type", json("object")) == "object" &&
                         std::ranges::none_of(std::array{"anyOf", "oneOf", "allOf", "enum", "const", "$ref"},
                                              [&](const char* key) { return object.contains(key); });
  if (!described || !properties.is_object() || !required.is_array())
    builder.fail("#: expected an object with 'properties', which this model's calls write one by one");
  for (const json& name : required)
    if (!name.is_string() || !properties.contains(name.get<std::string>()))
      builder.fail("#: 'required' names " + json_excerpt(name) + ", which is none of the properties");
  std::vector<Part> parts{builder.empty()};
  for (const auto& [name, schema] : properties.items()) {
    const std::string path = "#/properties/" + name;
    if (name.empty() || name.find_first_of("<>\n") != std::string::npos)
      builder.fail(path + ": this model's calls cannot write the name " + json_excerpt(json(name)));
    const Part value = is_text(parameters, schema) ? text_value(builder, resolved(parameters, schema), form, path)
                                                   : schema_within(builder, parameters, schema, path);
    const Part member =
        builder.sequence({builder.text(form.open + name + form.after_name), value, builder.text(form.close)});
    const bool needed = std::ranges::find(required, json(name)) != required.end();
    parts.push_back(needed ? member : builder.optional(member));
  }
  return builder.sequence(parts);
}

}  // namespace lathe::engine
