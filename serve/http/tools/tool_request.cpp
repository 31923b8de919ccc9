#include "serve/http/tools/tool_request.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"
#include "core/json.h"
#include "serve/engine/grammar/call_members.h"
#include "serve/engine/grammar/json_schema.h"
#include "serve/http/api_error.h"

namespace lathe::http {
namespace {

using nlohmann::ordered_json;

constexpr size_t most_tools = 128, most_calls = 128, most_name_bytes = 64;

std::string read_function_name(const Fields& function) {
  const ordered_json& name = function.required("name", "a name");
  const auto allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-' ||
           c == '.';
  };
  if (!name.is_string() || name.get_ref<const std::string&>().empty() ||
      name.get_ref<const std::string&>().size() > most_name_bytes ||
      !std::ranges::all_of(name.get_ref<const std::string&>(), allowed))
    throw bad_field(function.name_of("name"),
                    fmt::format("expected 1 to {} letters, digits, '_', '-' and '.', found {}", most_name_bytes,
                                json_excerpt(name)));
  return name.get<std::string>();
}

// The tool as templates read it.
ordered_json read_tool(const ordered_json& tool, const std::string& name, ToolShape shape,
                       std::vector<std::string>& names) {
  const Fields fields(tool, name + ".");
  if (fields.text("type") != "function")
    throw bad_field(name + ".type", "expected function, found " + json_excerpt(tool.value("type", ordered_json())));
  const bool nested = shape == ToolShape::nested;
  const ordered_json& given = nested ? fields.required("function", "an object with a name") : tool;
  const Fields function(given, nested ? name + ".function." : name + ".");
  names.push_back(read_function_name(function));
  if (std::ranges::count(names, names.back()) > 1)
    throw bad_field(function.name_of("name"), "the name " + names.back() + " is taken by another tool");
  function.text("description");
  function.boolean("strict");
  const ordered_json* parameters = function.find("parameters");
  if (parameters != nullptr &&
      (!parameters->is_object() || (parameters->contains("type") && (*parameters)["type"] != "object")))
    throw bad_field(function.name_of("parameters"),
                    "expected the JSON schema of an object, found " + json_excerpt(*parameters));
  if (nested) return tool;
  ordered_json moved = tool;
  moved.erase("type");
  return {{"type", "function"}, {"function", std::move(moved)}};
}

// The arguments' schema: an object in any case; without a schema one that is empty.
ordered_json schema_of(const ordered_json& tool) {
  const ordered_json& function = tool["function"];
  if (!function.contains("parameters") || function["parameters"].is_null())
    return {{"type", "object"}, {"properties", ordered_json::object()}};
  ordered_json schema = function["parameters"];
  const bool refers = schema.contains("$ref") || schema.contains("anyOf") || schema.contains("oneOf") ||
                      schema.contains("allOf") || schema.contains("enum") || schema.contains("const");
  if (!schema.contains("type") && !refers) schema["type"] = "object";
  return schema;
}

// tool_choice: a word, or {"type": "function", "function": {"name"}}, or that without "function".
void read_choice(const ordered_json& choice, ToolShape shape, ToolRequest& request) {
  const std::string expected = "expected none, auto, required, or a function of tools by its name, found ";
  if (choice.is_string()) {
    if (choice != "auto" && choice != "required") throw bad_field("tool_choice", expected + json_excerpt(choice));
    request.must_call = choice == "required";
    return;
  }
  const bool nested = shape == ToolShape::nested;
  if (!choice.is_object() || choice.value("type", ordered_json()) != "function" ||
      (nested && !choice.value("function", ordered_json()).is_object()))
    throw bad_field("tool_choice", expected + json_excerpt(choice));
  const std::string name = nested ? read_function_name(Fields(choice["function"], "tool_choice.function."))
                                  : read_function_name(Fields(choice, "tool_choice."));
  if (std::ranges::find(request.names, name) == request.names.end())
    throw bad_field("tool_choice", "the function " + name + " is none of tools");
  request.names = {name};
  request.must_call = true;
  request.parallel = false;
}

}  // namespace

ordered_json read_call_arguments(const ordered_json& arguments, const std::string& name) {
  if (arguments.is_object()) return arguments;
  if (!arguments.is_string()) throw bad_field(name, "expected a string of JSON, found " + json_excerpt(arguments));
  const std::string& text = arguments.get_ref<const std::string&>();
  if (text.find_first_not_of(" \t\r\n") == std::string::npos) return ordered_json::object();
  try {
    ordered_json read = parse_json(text, name, RepeatedKeys::last_counts, LargeIntegers::as_doubles);
    if (read.is_object()) return read;
  } catch (const FormatError&) {
  }
  throw bad_field(name, "expected a JSON object in the string, found " + json_excerpt(arguments));
}

std::optional<ToolRequest> read_tool_request(const Fields& fields, ToolShape shape) {
  for (const char* old : {"functions", "function_call"})
    if (fields.find(old) != nullptr) throw bad_field(fields.name_of(old), "this server reads tools and tool_choice");
  const bool parallel = fields.boolean("parallel_tool_calls").value_or(true);
  const ordered_json* tools = fields.find("tools");
  const ordered_json* choice = fields.find("tool_choice");
  const bool none = choice != nullptr && *choice == "none";
  if (tools == nullptr || (tools->is_array() && tools->empty())) {
    if (choice != nullptr && !none && *choice != "auto")
      throw bad_field("tool_choice", "is only allowed where tools are given");
    return std::nullopt;
  }
  if (!tools->is_array() || tools->size() > most_tools)
    throw bad_field("tools",
                    fmt::format("expected a list of up to {} tools, found {}", most_tools, json_excerpt(*tools)));
  ToolRequest request;
  request.parallel = parallel;
  for (size_t i = 0; i < tools->size(); ++i)
    request.tools.push_back(read_tool((*tools)[i], fmt::format("tools[{}]", i), shape, request.names));
  if (none) return std::nullopt;
  if (choice != nullptr) read_choice(*choice, shape, request);
  return request;
}

std::shared_ptr<const engine::Grammar> tool_grammar(const ToolRequest& request, const engine::CallForm& form,
                                                    ToolFormat format) {
  std::vector<ordered_json> schemas;
  schemas.reserve(request.tools.size());
  std::vector<engine::CallableFunction> functions;
  for (const ordered_json& tool : request.tools) {
    const std::string name = tool["function"]["name"];
    if (std::ranges::find(request.names, name) == request.names.end()) continue;
    functions.push_back({name, &schemas.emplace_back(schema_of(tool))});
  }
  // Llama's templates take back one call in a message; gpt-oss ends its turn with one.
  const bool one = !request.parallel || format == ToolFormat::llama || format == ToolFormat::llama_function ||
                   format == ToolFormat::harmony;
  try {
    return engine::function_calls_grammar(functions, form,
                                          one ? engine::CallCount::one : engine::CallCount::one_or_more);
  } catch (const ConfigError& error) {
    throw bad_field("tools", error.what());
  }
}

std::vector<TextMembers> text_members(const ToolRequest& request) {
  std::vector<TextMembers> all;
  for (const ordered_json& tool : request.tools) {
    const ordered_json schema = schema_of(tool);
    const ordered_json& object = engine::resolved(schema, schema);
    TextMembers texts{tool["function"]["name"], {}};
    if (object.is_object() && object.contains("properties") && object["properties"].is_object())
      for (const auto& [name, member] : object["properties"].items())
        if (engine::is_text(schema, member)) texts.names.insert(name);
    all.push_back(std::move(texts));
  }
  return all;
}

ordered_json read_tool_calls(const ordered_json& calls, const std::string& name) {
  if (!calls.is_array() || calls.empty() || calls.size() > most_calls)
    throw bad_field(name, fmt::format("expected a list of 1 to {} calls, found {}", most_calls, json_excerpt(calls)));
  ordered_json read = ordered_json::array();
  for (size_t i = 0; i < calls.size(); ++i) {
    const std::string place = fmt::format("{}[{}]", name, i);
    const Fields call(calls[i], place + ".");
    if (call.text("type").value_or("function") != "function")
      throw bad_field(place + ".type", "expected function, found " + json_excerpt(calls[i]));
    const Fields function(call.required("function", "an object with a name and arguments"), place + ".function.");
    ordered_json entry{{"type", "function"},
                       {"function",
                        {{"name", read_function_name(function)},
                         {"arguments", read_call_arguments(function.required("arguments", "a string of JSON"),
                                                           place + ".function.arguments")}}}};
    if (const auto id = call.text("id")) entry["id"] = *id;
    read.push_back(std::move(entry));
  }
  return read;
}

}  // namespace lathe::http
