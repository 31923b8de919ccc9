// How models write calls of functions into their answers: one way for each of their families.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizer/tokenizer.h"
#include "serve/engine/grammar/grammar.h"

namespace lathe::http {

enum class ToolFormat {
  // Qwen 2.5 and 3, SmolLM: <tool_call>\n{"name": …, "arguments": …}\n</tool_call>, or a list between the two.
  hermes,
  // Llama 3.x: the answer is {"name": …, "parameters": …}, after <|python_tag|> or without.
  llama,
  // [TOOL_CALLS] [{"name": …, "arguments": …}, …]
  mistral,
  // Mistral's from 2025 on: [TOOL_CALLS]NAME[ARGS]{…}, repeated.
  mistral_named,
  // Templates that ask Llama for <function=NAME>{…}</function>.
  llama_function,
  // Qwen3-Coder and later:
  // <tool_call>\n<function=NAME>\n<parameter=KEY>\nVALUE\n</parameter>\n</function>\n</tool_call>
  qwen_coder,
  // GLM 4.5: <tool_call>NAME\n<arg_key>KEY</arg_key>\n<arg_value>VALUE</arg_value>\n</tool_call>
  glm,
  // V3 and R1: within <｜tool▁calls▁begin｜> and its end, for each call,
  // <｜tool▁call▁begin｜>function<｜tool▁sep｜>NAME\n```json\n{…}\n```<｜tool▁call▁end｜>
  deepseek,
  // V3.1: the same with <｜tool▁call▁begin｜>NAME<｜tool▁sep｜>{…}<｜tool▁call▁end｜>.
  deepseek_v31,
  // gpt-oss: a message to the function, which harmony_parser.h reads.
  harmony,
};

// What the model's template says, by the marks that stand in it. ApiError 400 where it has no tools, or a way to
// write calls that this server does not know.
ToolFormat tool_format_of(const data::Tokenizer& tokenizer);
// The template for conversations with tools; empty where there is none.
std::string_view template_of(const data::Tokenizer& tokenizer);
// Whether its template joins a call's arguments to text, and so wants them as a string of JSON.
bool arguments_as_text(const data::Tokenizer& tokenizer);

struct ToolMarks {
  std::string_view open;                 // before calls; may be missing from an answer of Llama
  std::string_view close;                // after them, where there is one
  std::vector<std::string_view> behind;  // what may stand between a call's arguments and the next one or `close`
  std::vector<std::string_view> within;  // those within calls
};
const ToolMarks& marks_of(ToolFormat format);
// The marks that the tokenizer has as control tokens: they are no text, and yet must be seen.
std::vector<int32_t> mark_tokens(ToolFormat format, const data::Tokenizer& tokenizer);

// Calls as the format has them, from the first mark on.
const engine::CallForm& form_of(ToolFormat format);
// The same for answers that must call, with the marks that are control tokens.
engine::CallForm forced_form(ToolFormat format, const data::Tokenizer& tokenizer);

// Of a call, as the family's templates take it back: "call_…", for Mistral nine letters and digits.
std::string new_call_id(ToolFormat format);

}  // namespace lathe::http
