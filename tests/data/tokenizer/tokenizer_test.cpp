// What the golden corpus cannot show: broken files, special tokens that a user wrote, streams, long runs.
#include "data/tokenizer/tokenizer.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "core/error.h"
#include "core/random.h"
#include "data/tokenizer/utf8.h"

namespace lathe::data {
namespace {

// Every byte, three merges, an end-of-turn token and a token that is added but not special.
TokenizerMetadata small_metadata() {
  TokenizerMetadata metadata;
  metadata.model = "gpt2";
  metadata.pre = "gpt-2";
  for (int byte = 0; byte < 256; ++byte) {
    std::string token;
    append_code_point(token, byte_alphabet()[byte]);
    metadata.tokens.push_back(token);
  }
  for (const char* token : {"ab", "abc", "cd", "<|end|>", "<tool>"}) metadata.tokens.push_back(token);
  metadata.token_types.assign(metadata.tokens.size(), 1);
  metadata.token_types[259] = static_cast<int32_t>(TokenType::control);
  metadata.token_types[260] = static_cast<int32_t>(TokenType::user_defined);
  metadata.merges = {"a b", "c d", "ab c"};
  metadata.eos_id = 259;
  return metadata;
}

std::string message_of(const TokenizerMetadata& metadata) {
  try {
    Tokenizer::from_metadata(metadata);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(Tokenizer, MergesTheBestRankFirst) {
  const auto tokenizer = Tokenizer::from_metadata(small_metadata());
  EXPECT_EQ(tokenizer->encode("abc"), (std::vector<int32_t>{257}));
  EXPECT_EQ(tokenizer->encode("abcd"), (std::vector<int32_t>{256, 258}));  // "c d" ranks before "ab c"
}

TEST(Tokenizer, WhatAUserWroteNeverBecomesAControlToken) {
  const auto tokenizer = Tokenizer::from_metadata(small_metadata());
  const std::string text = "a<|end|>b<|end|>";
  EXPECT_EQ(tokenizer->encode(text, SpecialTokens::recognise), (std::vector<int32_t>{'a', 259, 'b', 259}));
  const std::vector<int32_t> plain = tokenizer->encode(text);
  EXPECT_EQ(std::count(plain.begin(), plain.end(), 259), 0);
  EXPECT_EQ(tokenizer->decode(plain), text);
  // The second one is the template's own; a range that holds a part of the first is not enough.
  const std::vector<TextRange> control = {{2, 8}, {9, 16}};
  const std::vector<int32_t> mixed = tokenizer->encode(text, control);
  EXPECT_EQ(std::count(mixed.begin(), mixed.end(), 259), 1);
  EXPECT_EQ(mixed.back(), 259);
  // Tokens that are not special are found anywhere, as in Hugging Face's split_special_tokens.
  EXPECT_EQ(tokenizer->encode("<tool>"), (std::vector<int32_t>{260}));
}

TEST(Tokenizer, RangesCoverTheTextInOrder) {
  const auto tokenizer = Tokenizer::from_metadata(small_metadata());
  const std::string text = "abcd <|end|> é abc";
  const TextRange whole{0, text.size()};
  const EncodedText encoded = tokenizer->encode_with_ranges(text, std::span(&whole, 1));
  ASSERT_EQ(encoded.ids.size(), encoded.ranges.size());
  size_t at = 0;
  for (const TextRange& range : encoded.ranges) {
    EXPECT_EQ(range.begin, at);
    at = range.end;
  }
  EXPECT_EQ(at, text.size());
}

TEST(Tokenizer, BrokenUtf8IsReadAsReplacementCharacters) {
  const auto tokenizer = Tokenizer::from_metadata(small_metadata());
  // Python: b"a\xe2\x82b\xff".decode(errors="replace") == "a\ufffdb\ufffd"
  EXPECT_EQ(tokenizer->encode("a\xE2\x82"
                              "b\xFF"),
            tokenizer->encode("a\xEF\xBF\xBD"
                              "b\xEF\xBF\xBD"));
  EXPECT_EQ(replace_invalid_utf8("\xF0\x80\x80\xED\xA0\x80\xC0\x80"), [] {
    std::string eight;
    for (int i = 0; i < 8; ++i) eight += replacement_character;
    return eight;
  }());
}

TEST(Tokenizer, AStreamHoldsBackHalfACharacter) {
  const auto tokenizer = Tokenizer::from_metadata(small_metadata());
  const std::vector<int32_t> ids = tokenizer->encode("é");
  ASSERT_EQ(ids.size(), 2u);
  StreamDecoder decoder(tokenizer);
  EXPECT_EQ(decoder.push(ids[0]), "");
  EXPECT_EQ(decoder.push(ids[1]), "é");
  EXPECT_EQ(decoder.push(ids[0]), "");
  EXPECT_EQ(decoder.push(259), "");  // special tokens are skipped
  EXPECT_EQ(decoder.finish(), replacement_character);
}

TEST(Tokenizer, IdsWithoutATokenHaveNoText) {
  const auto tokenizer = Tokenizer::from_metadata(small_metadata());
  EXPECT_EQ(tokenizer->decode(std::vector<int32_t>{-1, 256, 100000}), "ab");
}

// A million equal characters: quadratic merging would take hours here, and ctest's limit would end it.
TEST(Tokenizer, LongRunsAreNotQuadratic) {
  const auto tokenizer = Tokenizer::from_metadata(small_metadata());
  std::string text;
  for (int i = 0; i < 500'000; ++i) text += "ab";
  const std::vector<int32_t> ids = tokenizer->encode(text);
  EXPECT_EQ(ids, std::vector<int32_t>(500'000, 256));
  const std::string spaces(1'000'000, ' ');
  EXPECT_EQ(tokenizer->encode(spaces).size(), spaces.size());
}

// The heap of long words and the scan of short ones must agree; a word that is repeated shows the difference.
TEST(Tokenizer, ShortAndLongWordsMergeAlike) {
  const auto tokenizer = Tokenizer::from_metadata(small_metadata());
  RandomStream random(7, RandomPurpose::test);
  for (int round = 0; round < 200; ++round) {
    std::string text;
    const uint64_t length = 1 + random.below(100);
    for (uint64_t i = 0; i < length; ++i) text += static_cast<char>('a' + random.below(4));
    // Plain reference: the best pair of the whole word, again and again.
    std::vector<std::string> symbols;
    for (const char c : text) symbols.emplace_back(1, c);
    const std::vector<std::pair<std::string, std::string>> merges = {{"a", "b"}, {"c", "d"}, {"ab", "c"}};
    for (bool merged = true; merged;) {
      merged = false;
      for (const auto& [left, right] : merges) {
        for (size_t i = 0; i + 1 < symbols.size() && !merged; ++i) {
          if (symbols[i] != left || symbols[i + 1] != right) continue;
          symbols[i] += symbols[i + 1];
          symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(i) + 1);
          merged = true;
        }
        if (merged) break;
      }
    }
    std::vector<int32_t> expected;
    for (const std::string& symbol : symbols) expected.push_back(*tokenizer->token_id(symbol));
    EXPECT_EQ(tokenizer->encode(text), expected) << text;
    EXPECT_EQ(tokenizer->encode(text), expected) << "from the cache: " << text;
  }
}

TEST(Tokenizer, RejectsBrokenMetadata) {
  TokenizerMetadata metadata = small_metadata();
  metadata.tokens[5] = metadata.tokens[4];
  EXPECT_NE(message_of(metadata).find("token 5"), std::string::npos) << message_of(metadata);

  metadata = small_metadata();
  metadata.merges.push_back("ab");
  EXPECT_NE(message_of(metadata).find("merge 3"), std::string::npos);

  metadata = small_metadata();
  metadata.merges.push_back("a zz");
  EXPECT_NE(message_of(metadata).find("not in the vocabulary"), std::string::npos);

  metadata = small_metadata();
  metadata.eos_id = 261;
  EXPECT_NE(message_of(metadata).find("eos_token_id is 261"), std::string::npos);

  metadata = small_metadata();
  metadata.bos_id = -1;
  EXPECT_NE(message_of(metadata).find("bos_token_id"), std::string::npos);

  metadata = small_metadata();
  metadata.token_types.pop_back();
  EXPECT_NE(message_of(metadata).find("token_type has 260 entries"), std::string::npos);

  metadata = small_metadata();
  metadata.token_types[0] = 77;
  EXPECT_NE(message_of(metadata).find("unknown type 77"), std::string::npos);

  metadata = small_metadata();
  metadata.pre = "something-new";
  EXPECT_NE(message_of(metadata).find("'something-new'"), std::string::npos);

  metadata = small_metadata();
  metadata.model = "rwkv";
  EXPECT_NE(message_of(metadata).find("'rwkv'"), std::string::npos);

  metadata = small_metadata();
  metadata.tokens.clear();
  metadata.token_types.clear();
  EXPECT_NE(message_of(metadata).find("empty or missing"), std::string::npos);
}

class TokenizerFiles : public testing::Test {
 protected:
  void SetUp() override { std::filesystem::create_directories(directory_); }
  void TearDown() override { std::filesystem::remove_all(directory_); }
  void write(const char* name, const std::string& text) { std::ofstream(directory_ / name, std::ios::binary) << text; }
  std::string message() {
    try {
      Tokenizer::from_directory(directory_);
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  }
  std::filesystem::path directory_ = std::filesystem::path(testing::TempDir()) / "lathe_tokenizer_test";
};

TEST_F(TokenizerFiles, RejectsBrokenFiles) {
  EXPECT_NE(message().find("there is no tokenizer.json"), std::string::npos);
  const std::pair<const char*, const char*> cases[] = {
      {"{", "tokenizer.json"},
      {"[]", "not a JSON object"},
      {"{}", "no object \"model\""},
      {R"({"model": {"type": "WordLevel", "vocab": {}, "merges": []}})", "'WordLevel' is not supported"},
      {R"({"model": {"vocab": {"a": 0, "b": 0}, "merges": []}})", "repeats a token or an id"},
      {R"({"model": {"vocab": {"a": 0, "a": 1}, "merges": []}})", "repeats a token or an id"},
      {R"({"model": {"vocab": {"a": -1}, "merges": []}})", "the id of token 'a'"},
      {R"({"model": {"vocab": {"a": 99999999999}, "merges": []}})", "the id of token 'a'"},
      {R"({"model": {"vocab": {"a": 0}, "merges": ["aa"]}})", "merge 0"},
      {R"({"model": {"vocab": {"a": 0}, "merges": [["a", "b"]]}})", "not in the vocabulary: 'b'"},
      {R"({"model": {"vocab": {"a": 0}, "merges": [["a"]]}})", "merge 0"},
      {R"({"model": {"vocab": {"a": 0}, "merges": []}, "pre_tokenizer": {"type": "Magic"}})",
       "'Magic' is not supported"},
      {R"({"model": {"vocab": {"a": 0}, "merges": []}, "normalizer": {"type": "Magic"}})", "'Magic' is not supported"},
      {R"({"model": {"vocab": {"a": 0}, "merges": []}, "decoder": {"type": "CTC"}})", "'CTC' is not supported"},
      {R"({"model": {"vocab": {"a": 0}, "merges": []}, "post_processor": {"type": "Magic"}})",
       "'Magic' is not supported"},
      {R"({"model": {"vocab": {"a": 0}, "merges": []}, "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(("}, "behavior": "Isolated"}})",
       "cannot be compiled"},
      {R"({"model": {"vocab": {"a": 0}, "merges": []}, "added_tokens": [{"id": 0, "content": "b"}]})",
       "added token 'b'"},
      {R"({"model": {"vocab": {"a": 0}, "merges": []}, "added_tokens": [{"id": 5, "content": "a"}]})",
       "added token 'a'"},
      {R"({"model": {"vocab": {"a": 0}, "merges": []}, "added_tokens": [{"id": -5, "content": "b"}]})",
       "expected an integer from 0 to 16777215, found -5"},
      {R"({"model": {"vocab": {"a": 0}, "merges": []}, "added_tokens": [{"id": 1e26, "content": "b"}]})",
       "found 1e+26"},
      {R"({"model": {"vocab": {"a": 0}, "merges": []}, "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "x"}}], "special_tokens": {"x": {"ids": [4294967296]}}}})",
       "found 4294967296"},
      {R"({"model": {"vocab": {"a": 0}, "merges": [], "unk_token": "b"}})", "unk_token 'b'"},
  };
  for (const auto& [text, expected] : cases) {
    write("tokenizer.json", text);
    EXPECT_NE(message().find(expected), std::string::npos) << text << "\n" << message();
  }
  write("tokenizer.json", R"({"model": {"vocab": {"a": 0}, "merges": []}})");
  EXPECT_EQ(message(), "no error");
  write("tokenizer_config.json", R"({"eos_token": "</s>"})");
  EXPECT_EQ(Tokenizer::from_directory(directory_)->eos_id(), 1);  // added, as transformers does
  write("tokenizer_config.json", R"({"eos_token": 5})");
  EXPECT_NE(message().find("tokenizer_config.json"), std::string::npos);
}

TEST_F(TokenizerFiles, NormalisersThatAmplifyAreStopped) {
  const std::string grow =
      R"({"type": "Replace", "pattern": {"String": "a"}, "content": ")" + std::string(1000, 'a') + "\"}";
  write("tokenizer.json",
        R"({"model": {"vocab": {"a": 0}, "merges": []}, "normalizer": {"type": "Sequence", "normalizers": [)" + grow +
            "," + grow + "," + grow + "," + grow + "]}}");
  const auto tokenizer = Tokenizer::from_directory(directory_);
  EXPECT_THROW(tokenizer->encode("aaaaaaaaaa"), Error);
}

TEST_F(TokenizerFiles, DecodersThatAmplifyAreStopped) {
  const std::string grow =
      R"({"type": "Replace", "pattern": {"String": "a"}, "content": ")" + std::string(1000, 'a') + "\"}";
  write("tokenizer.json",
        R"({"model": {"vocab": {"a": 0}, "merges": []}, "decoder": {"type": "Sequence", "decoders": [)" + grow + "," +
            grow + "," + grow + "]}}");
  const auto tokenizer = Tokenizer::from_directory(directory_);
  EXPECT_THROW(tokenizer->decode(std::vector<int32_t>{0}), Error);
}

TEST_F(TokenizerFiles, ACountIsNoRoundedNumber) {
  for (const char* start : {"1e26", "1.5", "-1", "\"1\""}) {
    write(
        "tokenizer.json",
        std::string(
            R"({"model": {"vocab": {"a": 0}, "merges": []}, "decoder": {"type": "Strip", "content": "a", "start": )") +
            start + "}}");
    EXPECT_THROW(Tokenizer::from_directory(directory_), FormatError) << start;
  }
}

TEST_F(TokenizerFiles, FilesNestedDeeplyAreRefused) {
  const std::string model = R"({"model": {"vocab": {"a": 0}, "merges": []}, "normalizer": )";
  std::string nested = R"({"type": "Lowercase"})";
  for (int i = 0; i < 200; ++i) nested = R"({"type": "Sequence", "normalizers": [)" + nested + "]}";
  write("tokenizer.json", model + nested + "}");
  EXPECT_NE(message().find("nested"), std::string::npos) << message();
  write("tokenizer.json", model + "null}");
  write("tokenizer_config.json", std::string(100'000, '[') + std::string(100'000, ']'));
  EXPECT_NE(message().find("nested deeper than 100 levels"), std::string::npos) << message();
}

TEST_F(TokenizerFiles, APatternOfExponentialCostIsStopped) {
  write("tokenizer.json", R"({"model": {"vocab": {"a": 0}, "merges": []},
    "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(a|aa)+?[bc]"}, "behavior": "Isolated"}})");
  const auto tokenizer = Tokenizer::from_directory(directory_);
  EXPECT_THROW(tokenizer->encode(std::string(60, 'a')), ConfigError);
}

// The same greedily is an automaton, which tries all alternatives at once.
TEST_F(TokenizerFiles, AnAutomatonsCostIsNotExponential) {
  write("tokenizer.json", R"({"model": {"vocab": {"a": 0}, "merges": []},
    "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(a|aa)+[bc]"}, "behavior": "Isolated"}})");
  EXPECT_EQ(Tokenizer::from_directory(directory_)->encode(std::string(60, 'a')).size(), 60u);
}

TEST_F(TokenizerFiles, TheTemplateFileStandsAboveTheConfig) {
  write("tokenizer.json", R"({"model": {"vocab": {"a": 0}, "merges": []}})");
  write("tokenizer_config.json",
        R"({"chat_template": [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]})");
  EXPECT_EQ(Tokenizer::from_directory(directory_)->chat_template(), "D");
  write("chat_template.jinja", "J\n");
  EXPECT_EQ(Tokenizer::from_directory(directory_)->chat_template(), "J\n");
}

TEST_F(TokenizerFiles, AProcessorsTemplateCountsWhereTheTokenizerHasNone) {
  write("tokenizer.json", R"({"model": {"vocab": {"a": 0}, "merges": []}})");
  write("chat_template.json", R"({"chat_template": "P"})");
  EXPECT_EQ(Tokenizer::from_directory(directory_)->chat_template(), "P");
  write("tokenizer_config.json", R"({"chat_template": "D"})");
  EXPECT_EQ(Tokenizer::from_directory(directory_)->chat_template(), "D");
  write("tokenizer_config.json", "{}");
  write("chat_template.json", R"({"chat_template": 3})");
  EXPECT_THROW(Tokenizer::from_directory(directory_), FormatError);
}

}  // namespace
}  // namespace lathe::data
