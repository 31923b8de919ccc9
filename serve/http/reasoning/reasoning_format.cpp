#include "serve/http/reasoning/reasoning_format.h"

#include <array>

#include "serve/http/tools/tool_format.h"

namespace lathe::http {
namespace {

constexpr std::array<ReasoningMarks, 3> known_marks = {
    {{"<think>", "</think>"}, {"[THINK]", "[/THINK]"}, {"<seed:think>", "</seed:think>"}}};

}  // namespace

std::optional<ReasoningMarks> reasoning_marks_of(const data::Tokenizer& tokenizer) {
  const std::string_view source = template_of(tokenizer);
  for (const ReasoningMarks& marks : known_marks)
    if (source.find(marks.close) != std::string_view::npos) return marks;
  return std::nullopt;
}

bool speaks_harmony(const data::Tokenizer& tokenizer) {
  return template_of(tokenizer).find("<|channel|>") != std::string_view::npos;
}

std::vector<int32_t> end_of_reasoning(const ReasoningMarks& marks, const data::Tokenizer& tokenizer) {
  const auto id = tokenizer.token_id(marks.close);
  return id ? std::vector{*id} : std::vector<int32_t>();
}

std::vector<int32_t> end_of_harmony_reasoning(const data::Tokenizer& tokenizer) {
  const auto channel = tokenizer.token_id("<|channel|>"), message = tokenizer.token_id("<|message|>");
  if (!channel || !message) return {};
  std::vector<int32_t> tokens = tokenizer.encode("final", data::SpecialTokens::as_text, data::SequenceTokens::none);
  tokens.insert(tokens.begin(), *channel);
  tokens.push_back(*message);
  return tokens;
}

}  // namespace lathe::http
