// The fields tools, tool_choice and parallel_tool_calls, and calls in the messages of a conversation.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/json_value.h"
#include "serve/http/fields.h"
#include "serve/http/tools/named_call_reader.h"
#include "serve/http/tools/tool_format.h"

namespace lathe::http {

struct ToolRequest {
  nlohmann::ordered_json tools;    // the list as templates read it
  std::vector<std::string> names;  // that an answer may call
  bool must_call = false;          // tool_choice: required, or one function by its name
  bool parallel = true;            // more than one call in an answer
};

// Where a tool has its name and schema: in "function", as chats have it, or beside "type", as the Responses API.
enum class ToolShape { nested, flat };

// Nothing where the request has no tools or tool_choice is "none". ApiError for a tool that is no function with a name
// and a schema, a name that comes twice, a choice that is none of the tools.
std::optional<ToolRequest> read_tool_request(const Fields& fields, ToolShape shape = ToolShape::nested);

// What the answer of a request that must call may be: arguments are valid under their function's schema. ApiError 400
// for a schema that cannot be compiled.
std::shared_ptr<const engine::Grammar> tool_grammar(const ToolRequest& request, const engine::CallForm& form,
                                                    ToolFormat format);

// A call's arguments, an object or a string that holds one, as the object.
nlohmann::ordered_json read_call_arguments(const nlohmann::ordered_json& arguments, const std::string& name);

// The members of arguments that are strings and nothing else.
std::vector<TextMembers> text_members(const ToolRequest& request);

// tool_calls of an assistant's message, as templates read them: arguments, a string of JSON, as the object that it
// says. `name` is the field's name in errors.
nlohmann::ordered_json read_tool_calls(const nlohmann::ordered_json& calls, const std::string& name);

}  // namespace lathe::http
