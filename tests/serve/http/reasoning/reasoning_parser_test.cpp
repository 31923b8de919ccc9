// What a model thinks, told apart from what it says, however the text was cut into pieces.
#include "serve/http/reasoning/reasoning_parser.h"

#include <gtest/gtest.h>

namespace lathe::http {
namespace {

constexpr ReasoningMarks think = {"<think>", "</think>"};

struct Told {
  std::string reasoning, content;
  bool operator==(const Told&) const = default;
};
std::ostream& operator<<(std::ostream& out, const Told& told) {
  return out << "'" << told.reasoning << "' then '" << told.content << "'";
}

void expect_told(bool begun, const std::string& text, const Told& expected) {
  for (const size_t piece : {1, 2, 3, 7, 1000}) {
    ReasoningParser parser(think, begun);
    Told told;
    const auto take = [&](const ReasoningParser::Told& some) {
      told.reasoning += some.reasoning;
      told.content += some.content;
    };
    for (size_t i = 0; i < text.size(); i += piece) take(parser.push(std::string_view(text).substr(i, piece)));
    take(parser.finish());
    EXPECT_EQ(told, expected) << text << ", pieces of " << piece;
  }
}

TEST(ReasoningParser, ThoughtsStandBetweenTheirMarks) {
  expect_told(false, "<think>\nSix by\n\nseven.\n</think>\n\nIt is 42.\n", {"Six by\n\nseven.", "It is 42.\n"});
  expect_told(false, "\n <think></think> 42", {"", "42"});
  expect_told(false, "<think>a < b </thin </think>c", {"a < b </thin", "c"});
}

TEST(ReasoningParser, ThePromptMayHaveBegunThem) {
  expect_told(true, "\nSix by seven.\n</think>\n\n42", {"Six by seven.", "42"});
  expect_told(true, "</think>42", {"", "42"});
}

TEST(ReasoningParser, WithoutMarksAnAnswerIsContent) {
  expect_told(false, "It is 42.", {"", "It is 42."});
  expect_told(false, "  <thinking> of 42 </think>", {"", "  <thinking> of 42 </think>"});
  expect_told(false, " <thi", {"", " <thi"});
  expect_told(false, "", {"", ""});
}

TEST(ReasoningParser, WhatIsCutWithinAThoughtHasNoContent) {
  expect_told(false, "<think>\nSix by </thi", {"Six by </thi", ""});
  expect_told(true, "Six \n", {"Six", ""});
}

TEST(ReasoningParser, OnlyTheFirstThoughtIsOne) {
  expect_told(false, "<think>a</think>b <think>c</think>", {"a", "b <think>c</think>"});
}

}  // namespace
}  // namespace lathe::http
