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
  hermes,  // Qwen 2.5 and 3, SmolLM: <tool_call>\n{"name": …, "arguments": …}\n</tool_call>, or a list between the two
  llama,    // Llama 3.x: the answer is {"name": …, "parameters": …}, after <|python_tag|> or without
  mistral,  // [TOOL_CALLS] [{"name": …, "arguments": …}, …]
};

// What the model's template says, by the marks that stand in it. ApiError 400 where it has no tools, or a way to
// write calls that this server does not know.
ToolFormat tool_format_of(const data::Tokenizer& tokenizer);

struct ToolMarks {
  std::string_view open, close;  // before and after calls; either may be missing from an answer of Llama
};
ToolMarks marks_of(ToolFormat format);
// The marks that the tokenizer has as control tokens: they are no text, and yet must be seen.
std::vector<int32_t> mark_tokens(ToolFormat format, const data::Tokenizer& tokenizer);

// Calls as an answer has to write them, from the very beginning. Where the first mark is a control token, which no
// grammar can ask for, it ends the prompt instead: `opening` is that token.
struct ForcedCalls {
  engine::CallForm form;
  std::vector<int32_t> opening;
};
ForcedCalls forced_calls(ToolFormat format, const data::Tokenizer& tokenizer);

// Of a call, as the family's templates take it back: "call_…", for Mistral nine letters and digits.
std::string new_call_id(ToolFormat format);

}  // namespace lathe::http
