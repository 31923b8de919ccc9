// A stream shows what is decided and nothing broken: for every kind of tokenizer, whatever ids a model makes.
#include <gtest/gtest.h>

#include <array>
#include <cstdio>

#include "core/random.h"
#include "data/tokenizer/utf8.h"
#include "tests/data/golden_cases.h"

namespace lathe::data {
namespace {

class Streams : public testing::TestWithParam<const char*> {};

// Texts, and ids at random, of which most make bytes that are no characters: special tokens are kept or left out, and
// ids that have no token come, too.
std::vector<std::vector<int32_t>> sequences_of(const Tokenizer& tokenizer) {
  RandomStream random(11, RandomPurpose::test);
  std::vector<std::vector<int32_t>> sequences = {{}};
  for (const char* text : {"na\u00efve \u65e5\u672c\u8a9e \U0001F600\U0001F44D\U0001F3FD e\u0301", "a\n\n  b\t<s>x</s>",
                           "\xFF\xF0\x9F\x98", "I don't , ... [SEP] ## <0xE2><0x82>"})
    sequences.push_back(tokenizer.encode(text, SpecialTokens::recognise, SequenceTokens::add));
  for (int i = 0; i < 400; ++i) {
    std::vector<int32_t> ids;
    for (uint64_t length = random.below(24); length > 0; --length)
      ids.push_back(static_cast<int32_t>(random.below(static_cast<uint64_t>(tokenizer.vocab_size()) + 3)) - 1);
    sequences.push_back(ids);
  }
  // Bytes alone, where the vocabulary has them: nearly all of it is broken.
  const std::array<int32_t, 256> bytes = [&] {
    std::array<int32_t, 256> found;
    for (size_t byte = 0; byte < found.size(); ++byte) {
      char name[8];
      std::snprintf(name, sizeof name, "<0x%02X>", static_cast<unsigned>(byte));
      std::string letter;
      append_code_point(letter, byte_alphabet()[byte]);
      found[byte] = tokenizer.token_id(name).value_or(tokenizer.token_id(letter).value_or(-1));
    }
    return found;
  }();
  for (int i = 0; i < 400; ++i) {
    std::vector<int32_t> ids;
    // Mostly bytes that begin a character or go on with one.
    for (uint64_t length = random.below(12); length > 0; --length)
      ids.push_back(bytes[random.below(4) == 0 ? random.below(256) : 0x80 + random.below(0x78)]);
    sequences.push_back(ids);
  }
  return sequences;
}

TEST_P(Streams, GiveWholeCharactersThatJoinToTheText) {
  const auto tokenizer = Tokenizer::from_directory(golden::folder / "tokenizer" / GetParam());
  for (const std::vector<int32_t>& ids : sequences_of(*tokenizer)) {
    for (const bool skip : {false, true}) {
      StreamDecoder stream(tokenizer, skip);
      std::string joined;
      for (const int32_t id : ids) {
        const std::string piece = stream.push(id);
        EXPECT_TRUE(is_valid_utf8(piece)) << "after id " << id;
        joined += piece;
      }
      const std::string last = stream.finish();
      EXPECT_TRUE(is_valid_utf8(last));
      ASSERT_EQ(joined + last, tokenizer->decode(ids, skip)) << testing::PrintToString(ids);
      EXPECT_EQ(stream.finish(), "") << "nothing is said twice";
    }
  }
}

// What was shown stays: more tokens only add to it.
TEST_P(Streams, NeverTakeBackWhatTheyShowed) {
  const auto tokenizer = Tokenizer::from_directory(golden::folder / "tokenizer" / GetParam());
  for (const std::vector<int32_t>& ids : sequences_of(*tokenizer)) {
    StreamDecoder stream(tokenizer, false);
    std::string shown;
    for (size_t i = 0; i < ids.size(); ++i) {
      shown += stream.push(ids[i]);
      const std::string so_far = tokenizer->decode(std::span(ids).first(i + 1));
      ASSERT_TRUE(so_far.starts_with(shown)) << testing::PrintToString(ids) << " at " << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, Streams,
                         testing::Values("byte_level", "split_regex", "sentencepiece", "metaspace", "unigram",
                                         "unigram_bytes", "precompiled", "word_piece", "word_piece_cased"));

}  // namespace
}  // namespace lathe::data
