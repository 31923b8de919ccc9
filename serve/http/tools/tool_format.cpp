#include "serve/http/tools/tool_format.h"

#include <map>

#include "serve/http/api_error.h"
#include "serve/http/generation.h"
#include "serve/http/generation_settings.h"

namespace lathe::http {
namespace {

using engine::CallForm;

struct Format {
  ToolMarks marks;
  CallForm form;
};

const Format& described(ToolFormat format) {
  const auto json = [](const char* arguments, CallForm form) {
    form.open += "{\"name\": \"";
    form.after_name = std::string("\", \"") + arguments + "\": ";
    form.close = "}" + form.close;
    return form;
  };
  const auto deepseek = [](const char* open, const char* after_name, const char* close, const char* between) {
    return Format{{.open = "<｜tool▁calls▁begin｜>",
                   .close = "<｜tool▁calls▁end｜>",
                   .behind = {"```", "<｜tool▁call▁end｜>"},
                   .within = {"<｜tool▁call▁begin｜>", "<｜tool▁sep｜>"}},
                  {.first = "<｜tool▁calls▁begin｜>",
                   .open = open,
                   .after_name = after_name,
                   .close = close,
                   .between = between,
                   .last = "<｜tool▁calls▁end｜>"}};
  };
  static const std::map<ToolFormat, Format> formats{
      {ToolFormat::hermes,
       {{.open = "<tool_call>", .close = "</tool_call>"},
        json("arguments", {.open = "<tool_call>\n", .close = "\n</tool_call>", .between = "\n"})}},
      {ToolFormat::llama, {{.open = "<|python_tag|>"}, json("parameters", {.between = "; "})}},
      {ToolFormat::mistral,
       {{.open = "[TOOL_CALLS]"}, json("arguments", {.first = "[TOOL_CALLS][", .between = ", ", .last = "]"})}},
      {ToolFormat::mistral_named,
       {{.open = "[TOOL_CALLS]", .within = {"[CALL_ID]", "[ARGS]"}}, {.open = "[TOOL_CALLS]", .after_name = "[ARGS]"}}},
      {ToolFormat::llama_function,
       {{.open = "<function=", .close = "</function>"},
        {.open = "<function=", .after_name = ">", .close = "</function>", .between = "\n"}}},
      {ToolFormat::qwen_coder,
       {{.open = "<tool_call>", .close = "</tool_call>"},
        {.open = "<tool_call>\n<function=",
         .after_name = ">\n",
         .close = "</function>\n</tool_call>",
         .between = "\n",
         .members = {{.open = "<parameter=", .after_name = ">\n", .close = "\n</parameter>\n"}}}}},
      {ToolFormat::glm,
       {{.open = "<tool_call>", .within = {"</tool_call>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"}},
        {.open = "<tool_call>",
         .after_name = "\n",
         .close = "</tool_call>",
         .between = "\n",
         .members = {{.open = "<arg_key>", .after_name = "</arg_key>\n<arg_value>", .close = "</arg_value>\n"}}}}},
      {ToolFormat::deepseek,
       deepseek("<｜tool▁call▁begin｜>function<｜tool▁sep｜>", "\n```json\n", "\n```<｜tool▁call▁end｜>", "\n")},
      {ToolFormat::deepseek_v31, deepseek("<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>", "")},
      {ToolFormat::harmony,
       {{.open = "<|channel|>",
         .close = "<|call|>",
         .within = {"<|start|>", "<|message|>", "<|constrain|>", "<|end|>", "<|return|>"}},
        {.open = "<|channel|>commentary to=functions.", .after_name = " <|constrain|>json<|message|>"}}}};
  return formats.at(format);
}

bool has(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

bool is_control(std::string_view mark, const data::Tokenizer& tokenizer) {
  const auto id = tokenizer.token_id(mark);
  return id && tokenizer.is_special(*id);
}

std::vector<std::string_view> all_marks(ToolFormat format) {
  const ToolMarks& marks = marks_of(format);
  std::vector<std::string_view> all{marks.open, marks.close};
  for (const auto& more : {marks.behind, marks.within}) all.insert(all.end(), more.begin(), more.end());
  std::erase(all, std::string_view());
  return all;
}

}  // namespace

std::string_view template_of(const data::Tokenizer& tokenizer) {
  const auto& templates = tokenizer.chat_templates();
  auto found = templates.find("tool_use");
  if (found == templates.end()) found = templates.find("default");
  return found == templates.end() ? std::string_view() : std::string_view(found->second);
}

ToolFormat tool_format_of(const data::Tokenizer& tokenizer) {
  const std::string_view source = template_of(tokenizer);
  if (!has(source, "tools"))
    throw ApiError(400, "this model's chat template has no tools; leave the field out, or send tool_choice: \"none\"",
                   "tools");
  if (has(source, "<｜tool▁calls▁begin｜>"))
    return has(source, "```json") ? ToolFormat::deepseek : ToolFormat::deepseek_v31;
  if (has(source, "<arg_key>")) return ToolFormat::glm;
  if (has(source, "<parameter=")) return ToolFormat::qwen_coder;
  if (has(source, "<function=")) return ToolFormat::llama_function;
  if (has(source, "[TOOL_CALLS]")) return has(source, "[ARGS]") ? ToolFormat::mistral_named : ToolFormat::mistral;
  if (has(source, "<tool_call>")) return ToolFormat::hermes;
  if (has(source, "<|channel|>")) return ToolFormat::harmony;
  if (has(source, "<|python_tag|>") || has(source, "\"parameters\": ")) return ToolFormat::llama;
  throw ApiError(400,
                 "this model's chat template has tools, but writes calls in a way that this server cannot read "
                 "(docs/serving.md lists those that it can)",
                 "tools");
}

bool arguments_as_text(const data::Tokenizer& tokenizer) {
  return has(template_of(tokenizer), "<｜tool▁call▁begin｜>");
}

const ToolMarks& marks_of(ToolFormat format) { return described(format).marks; }

std::vector<int32_t> mark_tokens(ToolFormat format, const data::Tokenizer& tokenizer) {
  std::vector<int32_t> tokens;
  for (const std::string_view mark : all_marks(format))
    if (is_control(mark, tokenizer)) tokens.push_back(*tokenizer.token_id(mark));
  return tokens;
}

const CallForm& form_of(ToolFormat format) { return described(format).form; }

CallForm forced_form(ToolFormat format, const data::Tokenizer& tokenizer) {
  CallForm form = form_of(format);
  for (const std::string_view mark : all_marks(format))
    if (is_control(mark, tokenizer)) form.control_tokens.emplace_back(mark);
  return form;
}

std::string new_call_id(ToolFormat format) {
  if (format != ToolFormat::mistral && format != ToolFormat::mistral_named) return new_id("call_");
  constexpr std::string_view letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
  std::string id;
  uint64_t bits = random_seed();
  for (int i = 0; i < 9; ++i, bits /= letters.size()) id += letters[bits % letters.size()];
  return id;
}

}  // namespace lathe::http
