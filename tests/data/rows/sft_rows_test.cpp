// Rows that are wrong, each with the line it stands in; what is trained where golden rows do not say.
#include "data/rows/sft_rows.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "core/error.h"
#include "core/thread_pool.h"
#include "data/rows/json_lines.h"
#include "tests/support/source_dir.h"

namespace lathe::data {
namespace {

const char* const chatml =
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}{% generation %}{{ m.content "
    "}}<|im_end|>{% endgeneration %}"
    "{% else %}{{ m.content }}<|im_end|>{% endif %}\n{% endfor %}{% if add_generation_prompt "
    "%}<|im_start|>assistant\n{% endif %}";

class SftRowsTest : public testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::create_directories(directory_);
    std::filesystem::copy_file(std::filesystem::path(source_dir) / "tests/golden/tokenizer/byte_level/tokenizer.json",
                               directory_ / "tokenizer.json", std::filesystem::copy_options::overwrite_existing);
    std::ofstream(directory_ / "tokenizer_config.json")
        << R"({"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"})";
    tokenizer_ = Tokenizer::from_directory(directory_);
    end_of_turn_ = *tokenizer_->token_id("<|im_end|>");
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  SftRows read(const std::string& text, const SftOptions& options = {}) {
    const auto file = directory_ / "rows.jsonl";
    std::ofstream(file, std::ios::binary) << text;
    return read_sft_rows(file, *tokenizer_, chat_template_.get(), options);
  }
  std::string error(const std::string& text, const SftOptions& options = {}) {
    try {
      read(text, options);
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  }

  std::filesystem::path directory_ = std::filesystem::path(testing::TempDir()) / "lathe_sft_rows_test";
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::shared_ptr<const ChatTemplate> chat_template_ = ChatTemplate::compile(chatml);
  int32_t end_of_turn_ = 0;
};

TEST_F(SftRowsTest, TokensThatTheModelDoesNotHaveAreRefusedByTheirLine) {
  SftOptions options;
  options.vocab_size = 600;  // the id of <think>
  EXPECT_EQ(error("{\"text\": \"plain\"}\n", options), "no error");
  for (const char* row : {"{\"text\": \"a <think> b\"}", "{\"prompt\": \"a\", \"completion\": \"<think>\"}",
                          "{\"messages\": [{\"role\": \"user\", \"content\": \"<think>\"}]}",
                          "{\"input_ids\": [1, 600]}", "{\"input_ids\": [1, 2], \"labels\": [-100, 600]}"}) {
    const std::string refusal = error(std::string("{\"text\": \"plain\"}\n") + row, options);
    EXPECT_NE(refusal.find("line 2: holds the token 600 (\"<think>\"), but the model's embedding has 600 rows"),
              std::string::npos)
        << refusal;
  }
}

TEST_F(SftRowsTest, NamesTheFileTheLineAndTheReason) {
  const std::pair<const char*, const char*> cases[] = {
      {"{\"text\": \"a\"", "is not valid JSON"},
      {"{\"text\": \"a\"} x", "is not valid JSON"},
      {"nonsense", "is not valid JSON"},
      {"[1]", "is not a JSON object"},
      {"\"text\"", "is not a JSON object"},
      {"{}", "has none of"},
      {"{\"txt\": \"a\"}", "its fields are \"txt\""},
      {"{\"text\": 5}", "\"text\" must be a string, not number"},
      {"{\"text\": null}", "\"text\" must be a string, not null"},
      {"{\"text\": \"\xFF\"}", "is not valid UTF-8"},
      {"{\"text\": \"\\ud800\"}", "is not valid"},
      {"{\"text\": 123456789012345678901234567890}", "64 bits"},
      {"{\"input_ids\": [1e400]}", "number"},
      {"{\"messages\": []}", "\"messages\" has no message"},
      {"{\"messages\": {}}", "\"messages\" must be a list"},
      {"{\"messages\": [5]}", "\"messages\"[0] must be an object"},
      {"{\"messages\": [{\"content\": \"a\"}]}", "\"messages\"[0] has no \"role\""},
      {"{\"messages\": [{\"role\": \"user\"}]}", "\"messages\"[0] has no \"content\""},
      {"{\"messages\": [{\"role\": 5, \"content\": \"a\"}]}", ".role must be a string"},
      {"{\"messages\": [{\"role\": \"user\", \"content\": 5}]}", ".content must be a string"},
      {"{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}], \"tools\": 5}", "\"tools\" must be a list"},
      {"{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}], \"tools\": \"[\"}",
       "\"tools\" is a string that is no JSON"},
      {"{\"conversations\": [{\"value\": \"a\"}]}", "has no \"role\""},
      {"{\"prompt\": \"a\"}", "no \"completion\""},
      {"{\"prompt\": \"a\", \"completion\": 5}", "\"completion\" must be a string"},
      {"{\"prompt\": \"a\", \"completion\": [{\"role\": \"assistant\", \"content\": \"b\"}]}", "must both be"},
      {"{\"input_ids\": [1, 2.5]}", "must be a list of integers"},
      {"{\"input_ids\": \"1\"}", "must be a list of integers"},
      {"{\"input_ids\": [1, 100000]}", "holds 100000, but the vocabulary has"},
      {"{\"input_ids\": [1, -1]}", "holds -1"},
      {"{\"input_ids\": [18446744073709551615]}", "must be a list of integers"},
      {"{\"input_ids\": [1, 2], \"labels\": [1]}", "\"labels\" has 1 entries"},
      {"{\"input_ids\": [1], \"labels\": [-7]}", "neither a token nor -100"},
      {"{\"input_ids\": [1, 2], \"assistant_masks\": [1]}", "\"assistant_masks\" has 1 entries"},
      {"{\"input_ids\": [1, 2], \"assistant_masks\": [1, 2]}", "0 and 1 only"},
  };
  for (const auto& [row, reason] : cases) {
    const std::string message = error("{\"text\": \"fine\"}\n\n" + std::string(row) + "\n{\"text\": \"fine\"}\n");
    EXPECT_NE(message.find("rows.jsonl: line 3: "), std::string::npos) << row << "\n" << message;
    EXPECT_NE(message.find(reason), std::string::npos) << row << "\n" << message;
  }
}

TEST_F(SftRowsTest, RejectsFilesThatAreNoJsonLines) {
  EXPECT_NE(error("").find("there is no row"), std::string::npos);
  EXPECT_NE(error(" \n\n").find("there is no row"), std::string::npos);
  EXPECT_NE(error("[\n{\"text\": \"a\"}\n]").find("JSON array"), std::string::npos);
  EXPECT_NE(error("\x1F\x8B\x08").find("cut short"), std::string::npos);
  EXPECT_THROW(read_sft_rows(directory_ / "absent.jsonl", *tokenizer_, nullptr, {}), Error);
}

TEST_F(SftRowsTest, NamesAnEncodingThatIsNotUtf8) {
  using namespace std::string_literals;
  EXPECT_NE(error("\xFF\xFE{\0"s).find("this is UTF-16"), std::string::npos);
  EXPECT_NE(error("\xFE\xFF\0{"s).find("this is UTF-16"), std::string::npos);
  EXPECT_NE(error("{\0\"\0"s).find("this is UTF-16"), std::string::npos);
  EXPECT_NE(error("\0{\0\""s).find("this is UTF-16"), std::string::npos);
  EXPECT_NE(error("\xFF\xFE\0\0{\0\0\0"s).find("this is UTF-32"), std::string::npos);
  EXPECT_NE(error("{\0\0\0\"\0\0\0"s).find("this is UTF-32"), std::string::npos);
  EXPECT_NE(error("\0\0\0{\0\0\0\""s).find("this is UTF-32"), std::string::npos);
}

TEST_F(SftRowsTest, ARowOfManyKeysTakesTimeLinearInThem) {
  std::string row = "{\"text\": \"a\"";
  for (int i = 0; i < 200'000; ++i) row += ", \"key " + std::to_string(i) + "\": 1";
  EXPECT_EQ(read(row + "}\n").examples.size(), 1u);
}

TEST_F(SftRowsTest, ALabelOnTheFirstTokenAloneTeachesNothing) {
  const SftRows rows =
      read("{\"input_ids\": [5]}\n{\"input_ids\": [5, 6]}\n{\"input_ids\": [5, 6], \"labels\": [5, -100]}\n");
  ASSERT_EQ(rows.examples.size(), 1u);
  EXPECT_EQ(trained_tokens(rows.examples[0]), 1);
  ASSERT_EQ(rows.dropped.size(), 2u);
  EXPECT_EQ(rows.dropped[0].line, 1);
  EXPECT_EQ(rows.dropped[1].line, 3);
}

TEST_F(SftRowsTest, DeepNestingIsAnErrorAndNoCrash) {
  const std::string row = "{\"text\": " + std::string(100'000, '[') + std::string(100'000, ']') + "}";
  EXPECT_NE(error(row).find("line 1: is nested deeper"), std::string::npos);
}

TEST_F(SftRowsTest, ReportsTheFirstOfSeveralErrorsWhateverTheThreads) {
  std::string text;
  for (int i = 0; i < 200; ++i) text += i % 50 == 49 ? "{\n" : "{\"text\": \"a\"}\n";
  const int threads = thread_count();
  for (const int count : {1, 2}) {
    set_thread_count(count);
    EXPECT_NE(error(text).find("line 50: "), std::string::npos);
    EXPECT_NE(error(text).find("(and 3 more rows with errors)"), std::string::npos);
  }
  set_thread_count(threads);
}

TEST_F(SftRowsTest, ReadsWindowsLinesByteOrderMarksAndLongLines) {
  const std::string long_text(2'000'000, 'x');
  SftOptions options;
  options.max_length.reset();
  const SftRows rows = read("\xEF\xBB\xBF{\"text\": \"a\"}\r\n\r\n{\"text\": \"" + long_text + "\"}", options);
  ASSERT_EQ(rows.examples.size(), 2u);
  EXPECT_EQ(rows.lines, (std::vector<int64_t>{1, 3}));
  EXPECT_EQ(tokenizer_->decode(rows.examples[1].input_ids, true), long_text);
  EXPECT_EQ(rows.examples[1].input_ids.back(), end_of_turn_);
}

TEST_F(SftRowsTest, WhatAMessageSaysIsNoControlToken) {
  const SftRows rows =
      read(R"({"messages": [{"role": "user", "content": "<|im_end|>"}, {"role": "assistant", "content": "ok"}]})");
  const auto& ids = rows.examples.at(0).input_ids;
  EXPECT_EQ(std::count(ids.begin(), ids.end(), end_of_turn_), 2);
  SftOptions options;
  options.special_tokens_in_messages = SpecialTokens::recognise;
  const SftRows as_trl = read(
      R"({"messages": [{"role": "user", "content": "<|im_end|>"}, {"role": "assistant", "content": "ok"}]})", options);
  const auto& trl_ids = as_trl.examples.at(0).input_ids;
  EXPECT_EQ(std::count(trl_ids.begin(), trl_ids.end(), end_of_turn_), 3);
}

TEST_F(SftRowsTest, AssistantLossCoversTheEndOfTurn) {
  SftOptions options;
  options.assistant_only_loss = true;
  const SftRows rows =
      read(R"({"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes é😀"}]})", options);
  const SftExample& example = rows.examples.at(0);
  std::vector<int32_t> trained;
  for (size_t i = 0; i < example.labels.size(); ++i) {
    if (example.labels[i] == ignored_label) continue;
    EXPECT_EQ(example.labels[i], example.input_ids[i]);
    trained.push_back(example.labels[i]);
  }
  EXPECT_EQ(tokenizer_->decode(trained), "yes é😀<|im_end|>");
}

TEST_F(SftRowsTest, AssistantLossWithoutAnAssistantIsAnError) {
  SftOptions options;
  options.assistant_only_loss = true;
  EXPECT_NE(error(R"({"messages": [{"role": "user", "content": "hi"}]})", options)
                .find("line 1: has no token of the assistant"),
            std::string::npos);
  chat_template_ = nullptr;
  EXPECT_NE(error(R"({"messages": [{"role": "user", "content": "hi"}]})").find("no chat template"), std::string::npos);
  chat_template_ = ChatTemplate::compile("{{ raise_exception('no system role') }}");
  EXPECT_NE(error(R"({"messages": [{"role": "user", "content": "hi"}]})")
                .find("line 1: chat template: line 1: no system role"),
            std::string::npos);
}

TEST_F(SftRowsTest, CountsWhatIsCutAndWhatIsDropped) {
  SftOptions options;
  options.max_length = 3;
  const std::string text =
      "{\"input_ids\": [1, 2, 3, 4]}\n{\"input_ids\": []}\n{\"input_ids\": [1, 2, 3, 4], \"labels\": [-100, -100, "
      "-100, 4]}\n"
      "{\"input_ids\": [1], \"labels\": [-100]}\n{\"input_ids\": [5, 6]}\n";
  const SftRows rows = read(text, options);
  EXPECT_EQ(rows.lines, (std::vector<int64_t>{1, 5}));
  EXPECT_EQ(rows.examples[0].input_ids, (std::vector<int32_t>{1, 2, 3}));
  EXPECT_EQ(rows.truncated_lines, (std::vector<int64_t>{1, 3}));
  ASSERT_EQ(rows.dropped.size(), 3u);
  EXPECT_EQ(rows.dropped[0].line, 2);
  EXPECT_EQ(rows.dropped[0].reason, "it has no token");
  EXPECT_EQ(rows.dropped[1].line, 3);
  EXPECT_NE(rows.dropped[1].reason.find("after truncation"), std::string::npos);
  EXPECT_EQ(rows.dropped[2].line, 4);
  ASSERT_EQ(rows.warnings.size(), 2u);
  EXPECT_NE(rows.warnings[0].find("2 rows longer than max_length 3"), std::string::npos);
  EXPECT_NE(rows.warnings[1].find("3 rows dropped"), std::string::npos);

  options.truncation_mode = TruncationMode::keep_end;
  EXPECT_EQ(read(text, options).examples.at(0).input_ids, (std::vector<int32_t>{2, 3, 4}));
  options.too_long = TooLong::error;
  EXPECT_NE(error(text, options).find("line 1: has 4 tokens, and max_length is 3"), std::string::npos);
}

TEST_F(SftRowsTest, OptionsThatCannotBeAreConfigErrors) {
  SftOptions options;
  options.max_length = 0;
  EXPECT_THROW(read("{\"text\": \"a\"}", options), ConfigError);
  options.max_length.reset();
  options.packing = true;
  EXPECT_THROW(read("{\"text\": \"a\"}", options), ConfigError);
}

TEST_F(SftRowsTest, TheLastOfTwoEqualKeysCounts) {
  EXPECT_EQ(tokenizer_->decode(read(R"({"text": "first", "text": "second"})").examples.at(0).input_ids, true),
            "second");
}

}  // namespace
}  // namespace lathe::data
