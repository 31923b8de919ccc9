// How models tell what they think from what they say: one way for each of their families.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "data/tokenizer/tokenizer.h"

namespace lathe::http {

// Thoughts stand between two marks, before the answer.
struct ReasoningMarks {
  std::string_view open, close;
};

// What the model's template says, by the marks that stand in it: <think> (DeepSeek R1, Qwen 3, SmolLM3, GLM 4.5),
// [THINK] (Magistral) or <seed:think> (Seed-OSS). Nothing where it has none of them.
std::optional<ReasoningMarks> reasoning_marks_of(const data::Tokenizer& tokenizer);

// gpt-oss: an answer is a list of messages, each in a channel (harmony_parser.h).
bool speaks_harmony(const data::Tokenizer& tokenizer);

// The tokens that end what comes before an answer in its proper sense: the closing mark, or the head of Harmony's last
// message. Empty where the vocabulary lacks them.
std::vector<int32_t> end_of_reasoning(const ReasoningMarks& marks, const data::Tokenizer& tokenizer);
std::vector<int32_t> end_of_harmony_reasoning(const data::Tokenizer& tokenizer);

}  // namespace lathe::http
