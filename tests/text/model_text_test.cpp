// The text side of the real model, from its file: token ids of the tokenizers library and rows of TRL.
#include <cstdlib>
#include <fstream>

#include "core/error.h"
#include "tests/data/golden_cases.h"
#include "tests/data/preference_cases.h"
#include "tests/support/temporary_folder.h"
#include "text/generation_config.h"
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

TEST_F(ModelText, PreferenceRowsAreThoseOfTrl) {
  const auto scratch = std::filesystem::path(testing::TempDir()) / "lathe_model_text";
  std::filesystem::create_directories(scratch);
  size_t compared = 0;
  golden::compare_preference_rows(*tokenizer_, "smollm2", scratch, compared);
  EXPECT_EQ(compared, 8u);
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
  // The turn's end that the file names, and the text's end, which it does not.
  EXPECT_EQ(text.stop_token_ids, (std::vector<int32_t>{*text.tokenizer->token_id("<|endoftext|>"), end_of_turn.at(0)}));
}

// A directory with its config's eos 257 and whatever else a case puts beside it.
class StopTokens : public testing::Test {
 protected:
  void SetUp() override {
    const auto tiny = golden::folder / "tiny_llama/untied";
    for (const char* file : {"config.json", "model.safetensors"})
      std::filesystem::copy_file(tiny / file, folder_.path() / file);
    std::filesystem::copy_file(golden::folder / "tokenizer/byte_level/tokenizer.json",
                               folder_.path() / "tokenizer.json");
    auto config = nlohmann::json::parse(golden::read(folder_.path() / "config.json"));
    config["eos_token_id"] = 257;
    std::ofstream(folder_.path() / "config.json") << config.dump();
  }
  void write(const char* name, const std::string& text) { std::ofstream(folder_.path() / name) << text; }
  std::vector<int32_t> ids() {
    const nn::ModelFiles files = nn::open_model_files(folder_.path());
    return text::stop_tokens(files, *text::load_tokenizer(files));
  }
  TemporaryFolder folder_;
};

TEST_F(StopTokens, ComeFromEveryFileAndFromTheNamesThatFamiliesUse) {
  // <|endoftext|> and <|im_end|> are control tokens of the vocabulary
  EXPECT_EQ(ids(), (std::vector<int32_t>{0, 2, 257}));
  write("generation_config.json", R"({"eos_token_id": [257, 260], "temperature": 0.6, "do_sample": true})");
  EXPECT_EQ(ids(), (std::vector<int32_t>{0, 2, 257, 260}));
  write("generation_config.json", R"({"eos_token_id": 261})");
  EXPECT_EQ(ids(), (std::vector<int32_t>{0, 2, 257, 261}));
  write("tokenizer_config.json", R"({"eos_token": "a"})");
  EXPECT_EQ(ids(), (std::vector<int32_t>{0, 2, 67, 257, 261}));
}

TEST_F(StopTokens, AFileThatNamesNoIdIsRefused) {
  for (const char* wrong :
       {R"({"eos_token_id": [1, "x"]})", R"({"eos_token_id": 4294967298})", R"({"eos_token_id": 2.7})",
        R"({"eos_token_id": -1})", R"({"eos_token_id": 1e400})", "[]", "{"}) {
    write("generation_config.json", wrong);
    EXPECT_THROW(ids(), FormatError) << wrong;
  }
}

TEST_F(StopTokens, SamplingDefaultsAreReadAndNotApplied) {
  write("generation_config.json", R"({"temperature": 0.6, "top_k": 20, "unknown": 1})");
  const text::GenerationConfig config = text::read_generation_config(folder_.path());
  EXPECT_EQ(config.sampling, (nlohmann::ordered_json{{"temperature", 0.6}, {"top_k", 20}}));
}

TEST_F(ModelText, AModelWithoutATemplateHasNoConversations) {
  const text::ModelText text{tokenizer_, nullptr, {}};
  EXPECT_THROW(text.encode_chat(nlohmann::ordered_json::array()), ConfigError);
}

}  // namespace
}  // namespace lathe::data
