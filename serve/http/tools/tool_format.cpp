#include "serve/http/tools/tool_format.h"

#include "serve/http/api_error.h"
#include "serve/http/generation.h"
#include "serve/http/generation_settings.h"

namespace lathe::http {
namespace {

bool has(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

}  // namespace

ToolFormat tool_format_of(const data::Tokenizer& tokenizer) {
  const auto& templates = tokenizer.chat_templates();
  auto found = templates.find("tool_use");
  if (found == templates.end()) found = templates.find("default");
  const std::string_view source = found == templates.end() ? std::string_view() : std::string_view(found->second);
  if (!has(source, "tools"))
    throw ApiError(400, "this model's chat template has no tools; leave the field out, or send tool_choice: \"none\"",
                   "tools");
  const bool other = has(source, "<function=") || has(source, "<arg_key>") || has(source, "[ARGS]");
  if (!other && has(source, "[TOOL_CALLS]")) return ToolFormat::mistral;
  if (!other && has(source, "<tool_call>")) return ToolFormat::hermes;
  if (!other && (has(source, "<|python_tag|>") || has(source, "\"parameters\": "))) return ToolFormat::llama;
  throw ApiError(400,
                 "this model's chat template has tools, but writes calls in a way that this server cannot read "
                 "(it knows <tool_call> with JSON, [TOOL_CALLS] with JSON, and Llama 3's JSON)",
                 "tools");
}

ToolMarks marks_of(ToolFormat format) {
  switch (format) {
    case ToolFormat::hermes: return {"<tool_call>", "</tool_call>"};
    case ToolFormat::llama: return {"<|python_tag|>", {}};
    case ToolFormat::mistral: return {"[TOOL_CALLS]", {}};
  }
  return {};
}

std::vector<int32_t> mark_tokens(ToolFormat format, const data::Tokenizer& tokenizer) {
  std::vector<int32_t> tokens;
  const ToolMarks marks = marks_of(format);
  for (const std::string_view mark : {marks.open, marks.close})
    if (const auto id = tokenizer.token_id(mark); !mark.empty() && id && tokenizer.is_special(*id))
      tokens.push_back(*id);
  return tokens;
}

ForcedCalls forced_calls(ToolFormat format, const data::Tokenizer& tokenizer) {
  ForcedCalls forced;
  switch (format) {
    case ToolFormat::hermes: forced.form = {.open = "<tool_call>\n", .close = "\n</tool_call>", .between = "\n"}; break;
    case ToolFormat::llama: forced.form = {.arguments_key = "parameters", .between = "; "}; break;
    case ToolFormat::mistral:
      forced.opening = mark_tokens(format, tokenizer);
      forced.form = {.first = forced.opening.empty() ? "[TOOL_CALLS][" : "[", .between = ", ", .last = "]"};
      break;
  }
  return forced;
}

std::string new_call_id(ToolFormat format) {
  if (format != ToolFormat::mistral) return new_id("call_");
  constexpr std::string_view letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
  std::string id;
  uint64_t bits = random_seed();
  for (int i = 0; i < 9; ++i, bits /= letters.size()) id += letters[bits % letters.size()];
  return id;
}

}  // namespace lathe::http
