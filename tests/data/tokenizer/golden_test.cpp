// Token ids of the tokenizers library, both ways, over one corpus: every script, emoji, control characters, long
// runs of spaces, broken UTF-8. See tests/golden/README.md.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "data/tokenizer/tokenizer.h"
#include "data/tokenizer/utf8.h"
#include "programs/gguf_tokenizer.h"

namespace lathe::data {
namespace {

using nlohmann::json;

const std::filesystem::path golden = std::filesystem::path(LATHE_SOURCE_DIR) / "tests/golden/tokenizer";

std::string from_base64(const std::string& text) {
  const std::string alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string bytes;
  uint32_t bits = 0;
  int count = 0;
  for (const char c : text) {
    if (c == '=') break;
    bits = (bits << 6) | static_cast<uint32_t>(alphabet.find(c));
    count += 6;
    if (count >= 8) {
      count -= 8;
      bytes += static_cast<char>((bits >> count) & 0xFF);
    }
  }
  return bytes;
}

std::string excerpt(const std::string& text) { return replace_invalid_utf8(text.substr(0, 200)); }

void compare_with_library(const std::shared_ptr<const Tokenizer>& tokenizer, const std::filesystem::path& file) {
  std::ifstream stream(file);
  ASSERT_TRUE(stream) << "there is no " << file;
  const json rows = json::parse(stream);
  ASSERT_GT(rows.size(), 100u);
  for (const json& row : rows) {
    const std::string text = from_base64(row.at("bytes_b64"));
    const auto ids = row.at("ids").get<std::vector<int32_t>>();
    EXPECT_EQ(tokenizer->encode(text, SpecialTokens::recognise), ids) << excerpt(text);
    EXPECT_EQ(tokenizer->encode(text), row.at("ids_no_special").get<std::vector<int32_t>>()) << excerpt(text);
    const std::string decoded = from_base64(row.at("decoded_b64"));
    EXPECT_EQ(tokenizer->decode(ids), decoded) << excerpt(text);
    StreamDecoder stream_decoder(tokenizer, false);
    std::string streamed;
    for (const int32_t id : ids) {
      streamed += stream_decoder.push(id);
      EXPECT_TRUE(is_valid_utf8(streamed)) << excerpt(text);
    }
    streamed += stream_decoder.finish();
    EXPECT_EQ(streamed, decoded) << excerpt(text);
    if (row.contains("ids_with_post_processor")) {
      EXPECT_EQ(tokenizer->encode(text, SpecialTokens::recognise, SequenceTokens::add),
                row.at("ids_with_post_processor").get<std::vector<int32_t>>());
    }
  }
}

std::filesystem::path test_model() {
  if (const char* path = std::getenv("LATHE_TEST_MODEL")) return path;
  const char* cache = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  return (cache ? std::filesystem::path(cache) : std::filesystem::path(home ? home : ".") / ".cache") /
         "lathe/models/SmolLM2-135M-Instruct.Q4_1.gguf";
}

TEST(TokenizerGolden, SmolLM2FromGgufAgreesWithTheLibrary) {
  ASSERT_TRUE(std::filesystem::exists(test_model()))
      << "the model file is missing: run scripts/fetch-model, or set LATHE_TEST_MODEL to SmolLM2-135M-Instruct.Q4_1.gguf";
  compare_with_library(load_tokenizer(test_model()), golden / "smollm2.json");
}

class TokenizerJson : public testing::TestWithParam<const char*> {};

TEST_P(TokenizerJson, AgreesWithTheLibrary) {
  compare_with_library(Tokenizer::from_directory(golden / GetParam()), golden / GetParam() / "cases.json");
}

INSTANTIATE_TEST_SUITE_P(Shapes, TokenizerJson,
                         testing::Values("byte_level", "split_regex", "sentencepiece", "metaspace"));

}  // namespace
}  // namespace lathe::data
