// Tokenizers of GGUF files whose model is neither kind of BPE.
#include <gtest/gtest.h>

#include "core/error.h"
#include "data/tokenizer/gguf_tokenizer.h"
#include "tests/data/golden_cases.h"
#include "text/model_text.h"

namespace lathe::text {
namespace {

const std::filesystem::path tokenizers = data::golden::folder / "tokenizer";

data::TokenizerMetadata metadata_of(const char* name) {
  return tokenizer_metadata_of(*nn::GgufFile::open(tokenizers / name));
}

TEST(GgufWords, OfT5AgreeWithTheLibrary) {
  const auto tokenizer = load_tokenizer(tokenizers / "t5.gguf");
  data::golden::compare_with_library(tokenizer, tokenizers / "t5_cases.json");
  EXPECT_FALSE(tokenizer->token_id("[PAD1]")) << "what fills a model's vocabulary is no token";
}

TEST(GgufWords, OfBertAgreeWithTheLibrary) {
  data::golden::compare_with_library(load_tokenizer(tokenizers / "bert.gguf"), tokenizers / "bert_cases.json");
}

TEST(GgufWords, OfAVocabularyWithCapitalsKeepThem) {
  data::TokenizerMetadata metadata = metadata_of("bert.gguf");
  const auto capital = static_cast<int32_t>(metadata.tokens.size());
  EXPECT_EQ(data::Tokenizer::from_metadata(metadata)->encode("The"),
            data::Tokenizer::from_metadata(metadata)->encode("the"));
  metadata.tokens.push_back("▁The");
  metadata.token_types.push_back(static_cast<int32_t>(data::TokenType::normal));
  EXPECT_EQ(data::Tokenizer::from_metadata(metadata)->encode("The"), std::vector<int32_t>{capital});
}

TEST(GgufWords, WithoutWhatTheyNeedAreAnError) {
  data::TokenizerMetadata metadata = metadata_of("t5.gguf");
  EXPECT_THROW(data::tokenizer_files_of(metadata, "a file"), ConfigError) << "which writes BPE alone";
  metadata.precompiled_charsmap.resize(100);
  EXPECT_THROW(data::Tokenizer::from_metadata(metadata), FormatError);
  metadata.precompiled_charsmap.clear();
  metadata.tokens.back() = std::string(5000, 'a');
  EXPECT_THROW(data::Tokenizer::from_metadata(metadata), FormatError);
  metadata.scores.clear();
  EXPECT_THROW(data::Tokenizer::from_metadata(metadata), FormatError);
  metadata = metadata_of("bert.gguf");
  metadata.unknown_id.reset();
  EXPECT_THROW(data::Tokenizer::from_metadata(metadata), FormatError);
}

}  // namespace
}  // namespace lathe::text
