// SentencePiece's compiled rules: broken ones are refused when they are read, and none leads a text astray.
#include "data/tokenizer/precompiled_charsmap.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "core/random.h"
#include "data/tokenizer/normalizer.h"
#include "data/tokenizer/utf8.h"

namespace lathe::data {
namespace {

std::string little_endian(uint32_t value) {
  std::string bytes;
  for (int i = 0; i < 4; ++i) bytes += static_cast<char>(value >> 8 * i & 0xFF);
  return bytes;
}

// A double array in which each node has a block of 256 units to itself; block 0 has the root alone.
class Trie {
 public:
  Trie() : units(512) { units[0] = unit(0, 256, false); }
  void add(std::string_view key, uint32_t value) {
    uint32_t node = 256;
    for (size_t i = 0; i < key.size(); ++i) {
      const auto byte = static_cast<unsigned char>(key[i]);
      const uint32_t at = node ^ byte;
      if (units[at] == 0) {
        units[at] = unit(byte, at ^ static_cast<uint32_t>(units.size()), false);
        units.resize(units.size() + 256);
      }
      node = at ^ (units[at] >> 10);
      if (i + 1 == key.size()) units[at] |= 1u << 8;
    }
    units[node] = 1u << 31 | value;
  }
  static uint32_t unit(unsigned char label, uint32_t offset, bool leaf) {
    return offset << 10 | (leaf ? 1u << 8 : 0) | label;
  }
  std::vector<uint32_t> units;
};

std::string charsmap(const Trie& trie, std::string_view replacements) {
  std::string bytes = little_endian(static_cast<uint32_t>(4 * trie.units.size()));
  for (const uint32_t unit : trie.units) bytes += little_endian(unit);
  return bytes.append(replacements);
}

const std::string replacements("A\0bc\0\0", 6);  // "A" at 0, "bc" at 2, nothing at 5

std::string small_charsmap() {
  Trie trie;
  trie.add("a", 0);
  trie.add("x", 2);
  trie.add("\u00e9", 0);
  trie.add("\r", 5);
  return charsmap(trie, replacements);
}

std::string normalized(const std::string& text) {
  AlignedText aligned{text};
  PrecompiledCharsmap(small_charsmap(), "a file").apply(aligned);
  EXPECT_EQ(aligned.origin.empty() ? text.size() : aligned.origin.size(), aligned.text.size());
  return aligned.text;
}

TEST(PrecompiledCharsmap, AShortGraphemeIsReplacedWholeByItsFirstKey) {
  EXPECT_EQ(normalized("axe"), "Abce");
  EXPECT_EQ(normalized("a\u0301z"), "Az");                              // 3 bytes
  EXPECT_EQ(normalized("a\u0301\u0302\u0303"), "A\u0301\u0302\u0303");  // 7 bytes: character by character
  EXPECT_EQ(normalized("\r\n\n\r"), "\n");                              // CR LF is one, of which a key begins
  EXPECT_EQ(normalized(std::string("\0a\0", 3)), std::string("\0A\0", 3));
  EXPECT_EQ(normalized(""), "");
}

std::string message_of(const std::string& bytes) {
  try {
    const PrecompiledCharsmap read(bytes, "tokenizer.json");
  } catch (const FormatError& error) {
    return error.what();
  }
  return "no error";
}

void expect_message(const std::string& bytes, const char* expected) {
  EXPECT_NE(message_of(bytes).find(expected), std::string::npos) << message_of(bytes);
}

TEST(PrecompiledCharsmap, WhatIsBrokenIsSaid) {
  expect_message("", "has 0 bytes");
  expect_message(little_endian(8) + "1234", "trie has 8 bytes, of 4 that follow");
  expect_message(little_endian(0), "trie has 0 bytes");
  expect_message(little_endian(6) + "123456", "in units of 4");
  Trie short_block;
  short_block.units.resize(300);
  expect_message(charsmap(short_block, ""), "leads to unit 511, but has 300");
  Trie outside;
  outside.units[256 ^ 'a'] = Trie::unit('a', 1u << 20, false);
  expect_message(charsmap(outside, ""), "its trie leads to unit");
  Trie beyond;
  beyond.add("a", 7);
  expect_message(charsmap(beyond, replacements), "at byte 7 of 6");
  Trie inside;
  inside.add("a", 1);
  expect_message(charsmap(inside, "\u00e9"), "at byte 1 of 2, where no character does");
  expect_message(charsmap(Trie(), "\xFF"), "not UTF-8");
  EXPECT_EQ(message_of(charsmap(Trie(), "")), "no error");
}

TEST(PrecompiledCharsmap, ATrieThatLeadsBackIsNoEndlessOne) {
  Trie circle;
  circle.units[256 ^ 'a'] = Trie::unit('a', 'a', false);  // to the root again
  const PrecompiledCharsmap map(charsmap(circle, ""), "a file");
  EXPECT_FALSE(map.replacement(std::string(100, 'a')));
}

TEST(PrecompiledCharsmap, BytesThatAreChangedAreRefusedOrHarmless) {
  RandomStream random(3, RandomPurpose::test);
  const std::string whole = small_charsmap(), text = "axe\u00e9\r\n a\u0301\u4e00\U0001F600";
  int refused = 0;
  for (int round = 0; round < 2000; ++round) {
    std::string bytes = whole;
    // Mostly where the trie has something, at its beginning.
    for (uint64_t i = 0; i <= random.below(3); ++i)
      bytes[random.below(round % 2 == 0 ? bytes.size() : 2000)] = static_cast<char>(random.below(256));
    try {
      const PrecompiledCharsmap map(bytes, "a file");
      AlignedText aligned{text};
      map.apply(aligned);
      EXPECT_TRUE(is_valid_utf8(aligned.text));
    } catch (const FormatError&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 0);
}

TEST(PrecompiledCharsmap, RulesThatAmplifyAreStopped) {
  Trie trie;
  trie.add("a", 0);
  const PrecompiledCharsmap map(charsmap(trie, std::string(100'000, 'b')), "a file");
  AlignedText text{std::string(10'000, 'a')};
  EXPECT_THROW(map.apply(text), Error);
}

TEST(PrecompiledCharsmap, Base64IsReadStrictly) {
  for (const char* broken : {"AAA", "AA=A", "A===", "AAA\n", "AA-_", "!AAA"})
    EXPECT_THROW(read_precompiled_charsmap(broken, "a file"), FormatError) << broken;
}

}  // namespace
}  // namespace lathe::data
