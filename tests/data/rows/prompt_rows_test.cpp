// Prompts and what stands beside them; rows that are none, each with its line.
#include "data/rows/prompt_rows.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "core/error.h"
#include "tests/support/source_dir.h"

namespace lathe::data {
namespace {

class PromptRowsTest : public testing::Test {
 protected:
  void SetUp() override { std::filesystem::create_directories(directory_); }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  std::vector<PromptRow> read(const std::string& text, int64_t vocab_size = 1000) {
    const auto file = directory_ / "rows.jsonl";
    std::ofstream(file, std::ios::binary) << text;
    return read_prompt_rows(file, *tokenizer_, chat_template_.get(), vocab_size);
  }
  std::string error(const std::string& text, int64_t vocab_size = 1000) {
    try {
      read(text, vocab_size);
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  }

  std::filesystem::path directory_ = std::filesystem::path(testing::TempDir()) / "lathe_prompt_rows_test";
  std::shared_ptr<const Tokenizer> tokenizer_ =
      Tokenizer::from_directory(std::filesystem::path(source_dir) / "tests/golden/tokenizer/byte_level");
  std::shared_ptr<const ChatTemplate> chat_template_ = ChatTemplate::compile(
      "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
      "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}");
};

TEST_F(PromptRowsTest, ATextIsItsTokensAndOtherColumnsAreKept) {
  const auto rows = read("\n{\"prompt\": \"What is 1?\", \"answer\": 1, \"tags\": [null]}\n");
  ASSERT_EQ(rows.size(), 1u);
  EXPECT_EQ(rows[0].line, 2);
  EXPECT_EQ(rows[0].ids, tokenizer_->encode("What is 1?", SpecialTokens::recognise, SequenceTokens::add));
  EXPECT_FALSE(rows[0].is_chat());
  EXPECT_EQ(rows[0].columns.dump(), "{\"answer\":1,\"tags\":[null]}");
}

TEST_F(PromptRowsTest, AChatEndsWhereTheAssistantAnswers) {
  const auto rows = read(R"({"prompt": [{"role": "user", "content": "Say <|im_end|>"}], "answer": 2})");
  EXPECT_TRUE(rows[0].is_chat());
  const int32_t end = *tokenizer_->token_id("<|im_end|>");
  EXPECT_EQ(std::count(rows[0].ids.begin(), rows[0].ids.end(), end), 1) << "what a user wrote is text";
  EXPECT_TRUE(tokenizer_->decode(rows[0].ids).ends_with("<|im_start|>assistant\n"));
}

TEST_F(PromptRowsTest, WhatIsNoPromptIsNamedWithItsLine) {
  const std::string good = "{\"prompt\": \"a\"}\n";
  for (const auto& [row, reason] : {std::pair("{\"question\": \"a\"}", "has no \"prompt\""),
                                    {"{\"prompt\": \"\"}", "without a token"},
                                    {"{\"prompt\": 5}", "\"prompt\" must be a list of messages"},
                                    {"{\"prompt\": []}", "has no message"},
                                    {"{\"prompt\": [{\"content\": \"a\"}]}", "has no \"role\""},
                                    {"{\"prompt\": \"a\", \"completion\": \"b\"}", "has a column \"completion\""},
                                    {"{\"prompt\": \"a\"", "is not valid JSON"}}) {
    const std::string found = error(good + row);
    EXPECT_NE(found.find("line 2: "), std::string::npos) << found;
    EXPECT_NE(found.find(reason), std::string::npos) << found;
  }
  EXPECT_NE(error("\n").find("there is no row"), std::string::npos);
  EXPECT_NE(error("{\"prompt\": \"<think>\"}", 600).find("holds the token 600"), std::string::npos);
  chat_template_.reset();
  EXPECT_NE(error(R"({"prompt": [{"role": "user", "content": "a"}]})").find("no chat template"), std::string::npos);
}

}  // namespace
}  // namespace lathe::data
