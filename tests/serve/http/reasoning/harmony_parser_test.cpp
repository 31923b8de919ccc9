// Harmony's messages, however the text was cut into pieces.
#include "serve/http/reasoning/harmony_parser.h"

#include <gtest/gtest.h>

namespace lathe::http {
namespace {

struct Told {
  std::string reasoning, content;
  std::vector<std::string> calls;
  bool operator==(const Told&) const = default;
};
std::ostream& operator<<(std::ostream& out, const Told& told) {
  out << "'" << told.reasoning << "' then '" << told.content << "'";
  for (const std::string& call : told.calls) out << " " << call;
  return out;
}

Told told_in_pieces(const std::optional<ToolCallSettings>& calls, const std::string& text, size_t piece) {
  HarmonyParser parser(calls);
  AnswerParts all;
  for (size_t i = 0; i < text.size(); i += piece) append(all, parser.push(std::string_view(text).substr(i, piece)));
  append(all, parser.finish());
  Told told{all.reasoning, all.content, {}};
  for (const ToolCallDelta& call : all.calls) {
    EXPECT_TRUE(call.id.starts_with("call_"));
    told.calls.push_back(call.name + call.arguments);
  }
  EXPECT_EQ(parser.called(), !told.calls.empty());
  return told;
}

void expect_told(const std::string& text, const Told& expected, bool tools = true, bool parallel = true) {
  std::optional<ToolCallSettings> calls;
  if (tools) calls = {.format = ToolFormat::harmony, .names = {"f", "weather"}, .parallel = parallel};
  for (const size_t piece : {1, 2, 3, 7, 1000})
    EXPECT_EQ(told_in_pieces(calls, text, piece), expected) << text << ", pieces of " << piece;
}

TEST(HarmonyParser, ChannelsAreThoughtsAndAnswers) {
  expect_told(
      "<|channel|>analysis<|message|>Six by seven.<|end|><|start|>assistant<|channel|>final<|message|>It is 42.",
      {"Six by seven.", "It is 42.", {}});
  expect_told("<|channel|>final<|message|>a <| b<|return|>", {"", "a <| b", {}});
  expect_told("<|channel|>analysis<|message|>cut he", {"cut he", "", {}});
}

TEST(HarmonyParser, AMessageToAFunctionIsACall) {
  expect_told(
      "<|channel|>analysis<|message|>Ask.<|end|><|start|>assistant<|channel|>commentary to=functions.weather "
      "<|constrain|>json<|message|>{\"city\": \"}\"}<|call|>",
      {"Ask.", "", {"weather{\"city\": \"}\"}"}});
  expect_told("to=functions.f<|channel|>commentary json<|message|> {\"a\": {}} and more<|call|>",
              {"", "", {"f{\"a\": {}}"}});
  expect_told(
      "<|channel|>commentary<|message|>I look.<|end|><|start|>assistant to=functions.f<|channel|>commentary"
      "<|message|>{}<|call|><|start|>assistant to=functions.f<|channel|>commentary<|message|>{\"b\": 1}",
      {"", "I look.", {"f{}", "f{\"b\": 1}"}});
}

TEST(HarmonyParser, WhatCallsNoKnownFunctionIsContent) {
  const std::string call = "<|channel|>commentary to=functions.g <|constrain|>json<|message|>{\"a\": 1}<|call|>";
  expect_told(call, {"", "{\"a\": 1}", {}});
  expect_told("<|channel|>commentary to=functions.f<|message|>no object<|call|>", {"", "no object", {}});
  expect_told("<|channel|>commentary to=functions.f<|message|>{}<|call|>", {"", "{}", {}}, false);
}

TEST(HarmonyParser, OneCallWhereOnlyOneCounts) {
  expect_told(
      "<|channel|>commentary to=functions.f<|message|>{}<|end|><|start|>assistant<|channel|>commentary "
      "to=functions.f<|message|>{\"b\": 1}<|call|>",
      {"", "", {"f{}"}}, true, false);
}

TEST(HarmonyParser, SeveralMessagesOfAKindHaveALineBetweenThem) {
  expect_told(
      "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>analysis<|message|>b<|end|>"
      "<|start|>assistant<|channel|>final<|message|>c",
      {"a\n\nb", "c", {}});
}

TEST(HarmonyParser, TextWithoutMessagesIsAnAnswer) {
  expect_told("It is 42.", {"", "It is 42.", {}});
  expect_told(std::string(600, 'a'), {"", std::string(600, 'a'), {}});
  expect_told("<|channel|>final", {"", "", {}});
}

}  // namespace
}  // namespace lathe::http
