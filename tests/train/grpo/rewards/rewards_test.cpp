// What each built-in reward says of completions.
#include <gtest/gtest.h>

#include <fstream>

#include "core/error.h"
#include "core/json.h"
#include "tests/support/temporary_folder.h"
#include "train/grpo/rewards/answers.h"
#include "train/grpo/rewards/json_schema.h"
#include "train/grpo/rewards/shape.h"

namespace lathe::train {
namespace {

data::PromptRow row_with(nlohmann::ordered_json columns) {
  return {.file = "rows.jsonl", .line = 3, .ids = {1}, .prompt = "?", .columns = std::move(columns)};
}

std::optional<double> score(const RewardFunction& reward, const std::string& text, const data::PromptRow& row,
                            std::vector<int32_t> ids = {}) {
  return reward(std::vector<ScoredCompletion>{{&row, text, std::move(ids), false}}).at(0);
}

TEST(LastNumber, IsFoundInWhatPeopleWrite) {
  for (const auto& [text, number] : {std::pair("12", 12.0),
                                     {"The answer is 7.", 7},
                                     {"3 + 4 = 7", 7},
                                     {"-5", -5},
                                     {"it is -0.5 degrees", -0.5},
                                     {"$1,234.50", 1234.5},
                                     {"1,234,567", 1234567},
                                     {"12,34", 34},
                                     {"from 3-4", 4},
                                     {"6e2", 600},
                                     {".5", .5},
                                     {"10 apples", 10},
                                     {"x2", 2}})
    EXPECT_EQ(last_number(text), std::optional<double>(number)) << text;
  EXPECT_EQ(last_number("none"), std::nullopt);
  EXPECT_EQ(last_number(""), std::nullopt);
}

TEST(Answers, AreComparedWithTheColumn) {
  const data::PromptRow row = row_with({{"answer", 7}, {"text", " Seven "}, {"nothing", nullptr}});
  EXPECT_EQ(score(number_reward("answer"), "that is 7.0", row), 1.0);
  EXPECT_EQ(score(number_reward("answer"), "7 or 8", row), 0.0);
  EXPECT_EQ(score(number_reward("answer"), "no idea", row), 0.0);
  EXPECT_EQ(score(number_reward("nothing"), "7", row), std::nullopt);
  EXPECT_EQ(score(number_reward("missing"), "7", row), std::nullopt);
  EXPECT_EQ(score(exact_answer_reward("answer"), "7\n", row), 1.0);
  EXPECT_EQ(score(exact_answer_reward("answer"), "7.", row), 0.0);
  EXPECT_EQ(score(exact_answer_reward("text"), "Seven", row), 1.0);
  try {
    score(number_reward("text"), "7", row);
    FAIL() << "a column without a number cannot be compared with";
  } catch (const FormatError& error) {
    EXPECT_NE(std::string(error.what()).find("rows.jsonl, line 3"), std::string::npos) << error.what();
  }
}

TEST(Regex, IsSearchedForAnywhere) {
  const data::PromptRow row = row_with({});
  EXPECT_EQ(score(regex_reward("^<think>.*</think>"), "<think>hm</think> 7", row), 1.0);
  EXPECT_EQ(score(regex_reward("\\d{3}"), "ab123", row), 1.0);
  EXPECT_EQ(score(regex_reward("\\d{3}"), "ab12", row), 0.0);
  EXPECT_THROW(regex_reward("(("), ConfigError);
}

// TRL 1.16's get_soft_overlong_punishment(100, 20) and get_repetition_penalty_reward(2).
TEST(Shape, IsTrls) {
  const data::PromptRow row = row_with({});
  const RewardFunction length = length_reward(80, 100);
  for (const auto& [tokens, value] : {std::pair(80, 0.0), {90, -0.5}, {100, -1.0}, {101, -1.0}, {1, 0.0}})
    EXPECT_EQ(score(length, "", row, std::vector<int32_t>(static_cast<size_t>(tokens), 1)), value) << tokens;
  const RewardFunction repetition = repetition_reward(2);
  EXPECT_EQ(score(repetition, "", row, {1, 2, 3, 4}), 0.0);
  EXPECT_EQ(score(repetition, "", row, {5, 5, 5, 5, 5}), -0.75);
  EXPECT_EQ(score(repetition, "", row, {5}), 0.0);
}

std::optional<double> json_score(const std::string& schema, const std::string& text) {
  const TemporaryFolder folder;
  std::string file;
  if (!schema.empty()) {
    file = (folder.path() / "schema.json").string();
    std::ofstream(file) << schema;
  }
  return score(json_reward(file), text, row_with({}));
}

TEST(Json, IsOneValueWithoutTextAroundIt) {
  EXPECT_EQ(json_score("", " {\"a\": [1, 2]} \n"), 1.0);
  EXPECT_EQ(json_score("", "Sure: {\"a\": 1}"), 0.0);
  EXPECT_EQ(json_score("", ""), 0.0);
}

TEST(Json, IsWhatTheSchemaAccepts) {
  const std::string schema = R"({"type": "object", "required": ["name"], "additionalProperties": false, "properties": {
      "name": {"type": "string", "minLength": 2, "pattern": "^[A-Z]"},
      "age": {"type": ["integer", "null"], "minimum": 0, "maximum": 150},
      "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 2}}})";
  for (const char* good :
       {R"({"name": "Ann"})", R"({"name": "Ann", "age": 3.0, "tags": ["a", "b"]})", R"({"name": "Ann", "age": null})"})
    EXPECT_EQ(json_score(schema, good), 1.0) << good;
  for (const char* bad :
       {"[]", R"({"age": 3})", R"({"name": "A"})", R"({"name": "ann"})", R"({"name": "Ann", "age": -1})",
        R"({"name": "Ann", "age": 1.5})", R"({"name": "Ann", "age": 1e300})", R"({"name": "Ann", "tags": ["c"]})",
        R"({"name": "Ann", "tags": ["a", "a", "a"]})", R"({"name": "Ann", "other": 1})", R"({"name": 5})"})
    EXPECT_EQ(json_score(schema, bad), 0.0) << bad;
}

TEST(Json, ASchemaIsUnderstoodWholeOrRefused) {
  for (const auto& [schema, named] :
       {std::pair(R"({"oneOf": []})", "/oneOf is a keyword that is not understood"),
        {R"({"properties": {"a": {"format": "date"}}})", "/properties/a/format"},
        {R"({"type": "text"})", "'text' is no type"},
        {R"({"additionalProperties": {}})", "/additionalProperties must be true or false"},
        {R"({"minItems": -1})", "/minItems"},
        {R"([1])", "the schema must be an object"}}) {
    try {
      json_score(schema, "1");
      FAIL() << schema;
    } catch (const ConfigError& error) {
      EXPECT_NE(std::string(error.what()).find(named), std::string::npos) << error.what();
    }
  }
}

}  // namespace
}  // namespace lathe::train
