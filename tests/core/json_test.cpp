#include "core/json.h"

#include <gtest/gtest.h>

#include <chrono>
#include <fstream>

#include "core/error.h"
#include "core/json_value.h"
#include "tests/support/temporary_folder.h"

namespace lathe {
namespace {

using nlohmann::ordered_json;

std::string refusal(const std::string& text) {
  try {
    parse_json(text, "some.json");
  } catch (const FormatError& error) {
    return error.what();
  }
  return "accepted";
}

TEST(Json, ReadsWhatTheLibraryReads) {
  const std::string text =
      R"({"b": [1, -2, 3.5, 1e3, true, null, "x\u00e9\n"], "a": {}, "c": [], "d": 18446744073709551615})";
  EXPECT_EQ(parse_json(text, "some.json"), ordered_json::parse(text));
  EXPECT_EQ(parse_json("7", "some.json"), ordered_json(7));
}

TEST(Json, KeepsTheOrderOfKeysAndTheLastValueOfOneThatRepeats) {
  EXPECT_EQ(parse_json(R"({"z": 1, "a": 2, "z": 3})", "some.json").dump(), R"({"z":3,"a":2})");
}

TEST(Json, RefusesWhatIsNoJsonWithTheByte) {
  EXPECT_TRUE(refusal("{\"a\": 1,}").starts_with("some.json at byte 9: is no JSON: ")) << refusal("{\"a\": 1,}");
  for (const char* text : {"", "{", "[1 2]", "nul", "\"\xFF\"", "{\"a\"}", "1 2"})
    EXPECT_NE(refusal(text).find("is no JSON"), std::string::npos) << text << ": " << refusal(text);
}

TEST(Json, RefusesNestingBeyondAHundredLevelsWithoutTouchingTheStack) {
  EXPECT_EQ(refusal(std::string(100, '[') + std::string(100, ']')), "accepted");
  for (const size_t levels : {size_t{101}, size_t{100'000}, size_t{5'000'000}})
    EXPECT_EQ(refusal(std::string(levels, '[') + std::string(levels, ']')),
              "some.json: is nested deeper than 100 levels");
  std::string objects;
  for (int i = 0; i < 100'000; ++i) objects += "{\"a\":";
  EXPECT_EQ(refusal(objects), "some.json: is nested deeper than 100 levels");
}

TEST(Json, RefusesNumbersThatWouldBeRounded) {
  EXPECT_NE(refusal("{\"a\": 1e400}").find("out of range"), std::string::npos) << refusal("{\"a\": 1e400}");
  EXPECT_EQ(refusal("1e999"), "some.json at byte 5: a number is out of range: number overflow parsing '1e999'");
  EXPECT_EQ(refusal("[123456789012345678901]"), "some.json: the integer 123456789012345678901 needs more than 64 bits");
  EXPECT_EQ(refusal("-9223372036854775809"), "some.json: the integer -9223372036854775809 needs more than 64 bits");
}

TEST(Json, TakesTimeLinearInTheKeysOfAnObject) {
  std::string text = "{";
  for (int i = 0; i < 300'000; ++i) text += "\"key" + std::to_string(i) + "\":" + std::to_string(i) + ",";
  text.back() = '}';
  // Pairs of keys are 4.5e10: with a look at each this test would end at its limit of ten minutes.
  EXPECT_EQ(parse_json(text, "some.json").size(), 300'000u);
}

TEST(Json, IntegersAreIntegersOfTheRangeThatIsMeant) {
  const auto read = [](const char* text) {
    return json_integer(parse_json(text, "some.json"), "eos_token_id", 0, INT32_MAX, "some.json");
  };
  EXPECT_EQ(read("2"), 2);
  EXPECT_EQ(read("8.0"), 8);
  EXPECT_EQ(read("2147483647"), INT32_MAX);
  for (const char* text : {"4294967298", "2.7", "-1", "1e26", "18446744073709551615", "\"2\"", "true", "null", "[2]"}) {
    try {
      read(text);
      ADD_FAILURE() << text << " was accepted";
    } catch (const FormatError& error) {
      EXPECT_NE(std::string(error.what()).find("eos_token_id: expected an integer from 0 to 2147483647, found "),
                std::string::npos)
          << error.what();
    }
  }
}

TEST(Json, ExcerptsAreShort) {
  EXPECT_EQ(json_excerpt(ordered_json("short")), "\"short\"");
  EXPECT_LT(json_excerpt(ordered_json(std::string(100'000, 'x'))).size(), 70u);
  EXPECT_EQ(json_excerpt(ordered_json::array({1, 2})), "[1,2]");
  EXPECT_EQ(json_excerpt(ordered_json(std::vector<int>(100))), "a list of 100");
}

TEST(Json, ReadsAFileWithAByteOrderMark) {
  const TemporaryFolder folder;
  std::ofstream(folder.path() / "a.json") << "\xEF\xBB\xBF{\"a\": 1}";
  EXPECT_EQ(read_json_file(folder.path() / "a.json").dump(), "{\"a\":1}");
  EXPECT_THROW(read_json_file(folder.path() / "b.json"), ResourceError);
}

// What transformers writes where a tokenizer has no limit of length.
TEST(Json, SettingsMayHoldIntegersBeyond64BitsWhichNoIntegerSettingTakes) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "tokenizer_config.json";
  std::ofstream(path) << R"({"model_max_length": 1000000000000000019884624838656, "r": 8})";
  const ordered_json settings = read_json_file(path);
  EXPECT_EQ(settings["model_max_length"], 1e30);
  EXPECT_EQ(settings["r"], 8);
  EXPECT_THROW(json_integer(settings["model_max_length"], "r", 0, INT64_MAX, "some.json"), FormatError);
}

}  // namespace
}  // namespace lathe
