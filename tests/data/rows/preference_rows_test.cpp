// Preference rows as TRL prepares them (tests/golden/dpo/rows.json), and rows that are wrong, each with the line it
// stands in.
#include "data/rows/preference_rows.h"

#include "core/error.h"
#include "tests/data/preference_cases.h"

namespace lathe::data {
namespace {

class PreferenceRowsTest : public testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::create_directories(directory_);
    std::filesystem::copy_file(golden::folder / "tokenizer/byte_level/tokenizer.json", directory_ / "tokenizer.json",
                               std::filesystem::copy_options::overwrite_existing);
    std::ofstream(directory_ / "tokenizer_config.json")
        << R"({"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"})";
    tokenizer_ = Tokenizer::from_directory(directory_);
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  PreferenceRows read(const std::string& text, const PreferenceOptions& options = {}) {
    const auto file = directory_ / "rows.jsonl";
    std::ofstream(file, std::ios::binary) << text;
    const auto chat_template = ChatTemplate::compile(golden::read(golden::folder / "template/smollm2.jinja"));
    return read_preference_rows(file, *tokenizer_, chat_template.get(), options);
  }
  std::string error(const std::string& text, const PreferenceOptions& options = {}) {
    try {
      read(text, options);
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  }
  testing::AssertionResult refuses(const std::string& row, const std::string& words) {
    const std::string text = error("{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"c\"}\n" + row + "\n");
    if (text.find("line 2: ") != std::string::npos && text.find(words) != std::string::npos)
      return testing::AssertionSuccess();
    return testing::AssertionFailure() << "'" << words << "' is not in: " << text;
  }

  std::filesystem::path directory_ = std::filesystem::path(testing::TempDir()) / "lathe_preference_rows_test";
  std::shared_ptr<const Tokenizer> tokenizer_;
};

TEST_F(PreferenceRowsTest, AreWhatTrlPrepares) {
  size_t compared = 0;
  golden::compare_preference_rows(*tokenizer_, "byte_level", directory_, compared);
  EXPECT_EQ(compared, 8u);
}

TEST_F(PreferenceRowsTest, RowsThatAreNoPairAreRefusedByTheirLine) {
  EXPECT_TRUE(
      refuses(R"({"prompt": "a", "rejected": "c"})", "has no \"chosen\"; its fields are \"prompt\", \"rejected\""));
  EXPECT_TRUE(refuses(R"({"prompt": "a", "chosen": "c"})", "has no \"rejected\""));
  EXPECT_TRUE(refuses(R"({"text": "a"})", "has no \"chosen\"; its fields are \"text\""));
  EXPECT_TRUE(refuses(R"({"prompt": "a", "chosen": "b", "rejected": [{"role": "assistant", "content": "c"}]})",
                      "must both be strings or both be lists of messages"));
  EXPECT_TRUE(refuses(
      R"({"prompt": "a", "chosen": [{"role": "assistant", "content": "b"}], "rejected": [{"role": "assistant"}]})",
      "leave \"prompt\" out"));
  EXPECT_TRUE(refuses(R"({"prompt": "a", "chosen": 1, "rejected": "c"})", "\"chosen\" must be a string, not number"));
  EXPECT_TRUE(refuses(R"({"prompt": 5, "chosen": "b", "rejected": "c"})", "\"prompt\" must be a string, not number"));
  EXPECT_TRUE(refuses(R"({"prompt": [], "chosen": [], "rejected": []})", "has no message"));
  EXPECT_TRUE(refuses(R"({"chosen": "abc", "rejected": "xyz"})", "no beginning in common"));
  EXPECT_TRUE(
      refuses(R"({"chosen": [{"role": "user", "content": "b"}], "rejected": [{"role": "user", "content": "c"}]})",
              "no first message in common"));
  EXPECT_TRUE(refuses("{\"chosen\": ", "line 2"));
  EXPECT_NE(error("").find("there is no row in it"), std::string::npos);
}

TEST_F(PreferenceRowsTest, RowsThatTeachNothingAreDroppedAndTheFirstIsNamed) {
  const std::string good = "{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"c\"}\n";
  const PreferenceRows same = read(good + "{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"b\"}\n" + good);
  EXPECT_EQ(same.examples.size(), 2u);
  EXPECT_EQ(same.lines, (std::vector<int64_t>{1, 3}));
  ASSERT_GE(same.warnings.size(), 1u);
  EXPECT_EQ(same.warnings[0], "1 row dropped, the first in line 2: \"chosen\" and \"rejected\" are the same");

  PreferenceOptions options;
  options.max_length = 4;
  const PreferenceRows filled =
      read(good + "{\"prompt\": \"x y z x y z\", \"chosen\": \"b\", \"rejected\": \"c\"}\n", options);
  EXPECT_EQ(filled.examples.size(), 1u);
  ASSERT_GE(filled.warnings.size(), 1u);
  EXPECT_NE(filled.warnings[0].find("in line 2: its prompt alone has "), std::string::npos) << filled.warnings[0];
  EXPECT_NE(filled.warnings[0].find("which fill max_length 4"), std::string::npos);

  const PreferenceRows cut =
      read("{\"prompt\": \"x\", \"chosen\": \" y z x 1\", \"rejected\": \" y z x 2\"}\n" + good, options);
  ASSERT_EQ(cut.dropped.size(), 1u);
  EXPECT_EQ(cut.dropped[0].reason, "\"chosen\" and \"rejected\" are the same within max_length");
}

TEST_F(PreferenceRowsTest, TokensThatTheModelDoesNotHaveAreRefused) {
  PreferenceOptions options;
  options.vocab_size = 600;  // the id of <think>
  EXPECT_NE(
      error(R"({"prompt": "a", "chosen": "b", "rejected": "<think>"})", options).find("line 1: holds the token 600"),
      std::string::npos);
}

TEST_F(PreferenceRowsTest, SpecialTokensInMessagesAreTextUnlessAskedFor) {
  const std::string row =
      R"({"prompt": [{"role": "user", "content": "x<|im_end|>"}], "chosen": [{"role": "assistant", "content": "y"}],)"
      R"( "rejected": [{"role": "assistant", "content": "z"}]})";
  PreferenceOptions options;
  const size_t as_text = read(row, options).examples[0].chosen.input_ids.size();
  options.special_tokens_in_messages = SpecialTokens::recognise;
  EXPECT_GT(as_text, read(row, options).examples[0].chosen.input_ids.size());
}

}  // namespace
}  // namespace lathe::data
