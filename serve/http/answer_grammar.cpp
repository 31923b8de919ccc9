#include "serve/http/answer_grammar.h"

#include <utility>
#include <vector>

#include "core/error.h"
#include "core/json.h"
#include "core/json_value.h"
#include "serve/http/api_error.h"

namespace lathe::http {
namespace {

using nlohmann::ordered_json;
using GrammarPointer = std::shared_ptr<const engine::Grammar>;

constexpr size_t most_pattern_bytes = 16 << 10, most_texts = 4096;

template <class Make>
GrammarPointer made(const std::string& name, Make make) {
  try {
    return make();
  } catch (const ConfigError& error) {
    throw bad_field(name, error.what());
  } catch (const FormatError& error) {
    throw bad_field(name, error.what());
  }
}

// A schema, or one written into a string.
GrammarPointer schema_grammar(const std::string& name, const ordered_json& schema) {
  return made(name, [&] {
    return engine::json_schema_grammar(schema.is_string() ? parse_json(schema.get<std::string>(), "the schema")
                                                          : schema);
  });
}

GrammarPointer pattern_grammar(const std::string& name, const ordered_json& pattern) {
  if (!pattern.is_string() || pattern.get_ref<const std::string&>().size() > most_pattern_bytes)
    throw bad_field(name, "expected a regular expression of up to 16 KiB, found " + json_excerpt(pattern));
  return made(name, [&] { return engine::regex_grammar(pattern.get<std::string>()); });
}

GrammarPointer texts_grammar(const Fields& fields, const char* key) {
  const std::vector<std::string> texts = fields.texts(key, most_texts);
  if (texts.empty()) throw bad_field(fields.name_of(key), "expected a list of texts that is not empty");
  return made(fields.name_of(key), [&] { return engine::choice_grammar(texts); });
}

// `name` is the field's in errors; a schema stands in the format, or in its member json_schema.
GrammarPointer format_grammar(const std::string& name, const ordered_json& value, bool nested) {
  const Fields format(value, name + ".");
  const std::string type = format.text("type").value_or("");
  if (type == "text") return nullptr;
  if (type == "json_object") return engine::json_object_grammar();
  if (type != "json_schema")
    throw bad_field(name, "expected the type text, json_object or json_schema, found " + json_excerpt(value));
  const Fields schema(nested ? format.required("json_schema", "an object with a schema") : value,
                      format.name_of(nested ? "json_schema." : ""));
  return schema_grammar(name, schema.required("schema", "a JSON schema"));
}

GrammarPointer of_keys(const Fields& fields, const char* json, const char* regex, const char* choice) {
  std::vector<GrammarPointer> found;
  if (const ordered_json* schema = fields.find(json)) found.push_back(schema_grammar(fields.name_of(json), *schema));
  if (const ordered_json* pattern = fields.find(regex))
    found.push_back(pattern_grammar(fields.name_of(regex), *pattern));
  if (fields.find(choice) != nullptr) found.push_back(texts_grammar(fields, choice));
  if (found.size() > 1) throw bad_field(fields.name_of(json), "only one description of the answer is allowed");
  return found.empty() ? nullptr : found[0];
}

}  // namespace

GrammarPointer read_grammar(const Fields& fields) {
  std::vector<GrammarPointer> found;
  if (const ordered_json* format = fields.find("response_format"))
    found.push_back(format_grammar("response_format", *format, true));
  if (const ordered_json* outputs = fields.find("structured_outputs"))
    found.push_back(of_keys(Fields(*outputs, "structured_outputs."), "json", "regex", "choice"));
  found.push_back(of_keys(fields, "guided_json", "guided_regex", "guided_choice"));
  GrammarPointer grammar;
  for (const GrammarPointer& one : found) {
    if (grammar && one) throw bad_field("response_format", "only one description of the answer is allowed");
    if (one) grammar = one;
  }
  return grammar;
}

GrammarPointer read_text_format(const ordered_json& format) { return format_grammar("text.format", format, false); }

GrammarPointer read_tgi_grammar(const Fields& parameters) {
  const ordered_json* given = parameters.find("grammar");
  if (given == nullptr) return nullptr;
  const std::string name = parameters.name_of("grammar");
  const Fields grammar(*given, name + ".");
  const std::string type = grammar.text("type").value_or("");
  const ordered_json& value = grammar.required("value", "a schema or a regular expression");
  if (type == "regex") return pattern_grammar(name, value);
  if (type == "json" || type == "json_object") return schema_grammar(name, value);
  throw bad_field(name + ".type", "expected json or regex, found " + json_excerpt(*given));
}

}  // namespace lathe::http
