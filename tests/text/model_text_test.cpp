// The text side of the real model, from its file: token ids of the tokenizers library and rows of TRL.
#include <cstdlib>

#include "core/error.h"
#include "tests/data/golden_cases.h"
#include "text/model_text.h"

namespace lathe::data {
namespace {

std::filesystem::path test_model() {
  if (const char* path = std::getenv("LATHE_TEST_MODEL")) return path;
  const char* cache = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  return (cache ? std::filesystem::path(cache) : std::filesystem::path(home ? home : ".") / ".cache") /
         "lathe/models/SmolLM2-135M-Instruct.Q4_1.gguf";
}

class ModelText : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(std::filesystem::exists(test_model())) << "the model file is missing: run scripts/fetch-model, or set "
                                                          "LATHE_TEST_MODEL to SmolLM2-135M-Instruct.Q4_1.gguf";
    tokenizer_ = text::load_tokenizer(nn::open_model_files(test_model()));
  }
  std::shared_ptr<const Tokenizer> tokenizer_;
};

TEST_F(ModelText, TokensAreThoseOfTheLibrary) {
  golden::compare_with_library(tokenizer_, golden::folder / "tokenizer/smollm2.json");
}

TEST_F(ModelText, RowsAreThoseOfTrl) {
  const auto scratch = std::filesystem::path(testing::TempDir()) / "lathe_model_text";
  std::filesystem::create_directories(scratch);
  size_t compared = 0;
  golden::compare_rows(*tokenizer_, "smollm2", scratch, compared);
  EXPECT_GT(compared, 8u);
}

TEST_F(ModelText, TheTemplateInTheFileIsTheGoldenOne) {
  ASSERT_TRUE(tokenizer_->chat_template());
  EXPECT_EQ(*tokenizer_->chat_template(), golden::read(golden::folder / "template/smollm2.jinja"));
}

TEST_F(ModelText, AConversationEndsWhereTheAssistantAnswersAndAnswersEndAtTheTurn) {
  const text::ModelText text = text::load_model_text(nn::open_model_files(test_model()));
  const auto messages = nlohmann::ordered_json::array({{{"role", "user"}, {"content", "Hi"}}});
  const std::string chat = text.tokenizer->decode(text.encode_chat(messages));
  EXPECT_TRUE(chat.ends_with("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")) << chat;
  const std::vector<int32_t> end_of_turn =
      text.tokenizer->encode("<|im_end|>", SpecialTokens::recognise, SequenceTokens::none);
  EXPECT_EQ(text.stop_token_ids, end_of_turn);
}

TEST_F(ModelText, AModelWithoutATemplateHasNoConversations) {
  const text::ModelText text{tokenizer_, nullptr, {}};
  EXPECT_THROW(text.encode_chat(nlohmann::ordered_json::array()), ConfigError);
}

}  // namespace
}  // namespace lathe::data
