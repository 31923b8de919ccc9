#include "data/tokenizer/composed_text.h"

#include <gtest/gtest.h>
#include <utf8proc.h>

#include <cstdlib>
#include <random>
#include <set>

#include "data/tokenizer/utf8.h"

namespace lathe::data {
namespace {

std::string mapped(std::string_view text, int options) {
  utf8proc_uint8_t* result = nullptr;
  const utf8proc_ssize_t length =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()), static_cast<utf8proc_ssize_t>(text.size()),
                   &result, static_cast<utf8proc_option_t>(UTF8PROC_STABLE | options));
  EXPECT_GE(length, 0);
  const std::string copy(reinterpret_cast<const char*>(result), static_cast<size_t>(length));
  std::free(result);
  return copy;
}
std::string nfc(std::string_view text) { return mapped(text, UTF8PROC_COMPOSE); }

std::string utf8_of(char32_t c) {
  std::string text;
  append_code_point(text, c);
  return text;
}

bool is_surrogate(char32_t c) { return c >= 0xD800 && c <= 0xDFFF; }

// What a character's decomposition has after its first: all that may combine with what stands before it.
std::set<char32_t> characters_that_combine() {
  std::set<char32_t> found;
  for (char32_t c = 0; c < 0x110000; ++c) {
    if (is_surrogate(c)) continue;
    const std::string parts = mapped(utf8_of(c), UTF8PROC_DECOMPOSE);
    size_t at = 0;
    if (!parts.empty()) next_code_point(parts, at);
    while (at < parts.size()) found.insert(next_code_point(parts, at));
  }
  return found;
}

TEST(ComposedText, CharactersThatStayAreComposedAndCombineWithNothingBeforeThem) {
  const std::set<char32_t> combine = characters_that_combine();
  ASSERT_TRUE(combine.contains(0x301) && combine.contains(0x3099) && combine.contains(0x1161));
  size_t stay = 0;
  for (char32_t c = 0; c < 0x110000; ++c) {
    if (is_surrogate(c) || !stays_in_nfc(c)) continue;
    ++stay;
    EXPECT_EQ(nfc(utf8_of(c)), utf8_of(c)) << std::hex << static_cast<uint32_t>(c);
    EXPECT_EQ(utf8proc_get_property(static_cast<utf8proc_int32_t>(c))->combining_class, 0)
        << std::hex << static_cast<uint32_t>(c);
    EXPECT_FALSE(combine.contains(c)) << std::hex << static_cast<uint32_t>(c);
  }
  EXPECT_GT(stay, 40000u);
}

TEST(ComposedText, AnyMixtureComesOutAsTheWholeTextsNormalForm) {
  const std::string_view pieces[] = {"a",      "e",      " ",      "é",      "\u0301", "\u0323", "\u0327",
                                     "“",      "…",      "か",     "\u3099", "한",     "\u1112", "\u1161",
                                     "\u11ab", "\u212b", "\u0958", "न",      "\u093c", "😀",      "漢",
                                     "\uf900", "Å",      "\u0344", "=",      "\u0338", "\u2126"};
  std::mt19937_64 random(7);
  for (int round = 0; round < 20000; ++round) {
    std::string text;
    for (size_t i = random() % 12; i > 0; --i) text += pieces[random() % std::size(pieces)];
    EXPECT_EQ(compose_text(text, nfc), nfc(text)) << text;
  }
}

TEST(ComposedText, NothingIsNormalisedThatStays) {
  const std::string text = "naïve “quotes” – 漢字 😀 Ελλάς";
  EXPECT_EQ(compose_text(text, [](std::string_view) -> std::string { return "!"; }), text);
  EXPECT_EQ(compose_text("", [](std::string_view) -> std::string { return "!"; }), "");
}

}  // namespace
}  // namespace lathe::data
