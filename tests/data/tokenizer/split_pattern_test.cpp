// Automata cut as PCRE2 does, which has the patterns' meaning.
#include "data/tokenizer/split_pattern.h"
#include "core/json_value.h"

#include <gtest/gtest.h>

#include <optional>
#include <random>
#include <thread>

#include "core/error.h"
#include "data/tokenizer/gguf_pre_tokenizers.h"
#include "data/tokenizer/utf8.h"

namespace lathe::data {
namespace {

using Ranges = std::vector<std::pair<size_t, size_t>>;

template <class Find>
Ranges all_matches(std::string_view text, const Find& find) {
  Ranges ranges;
  for (size_t from = 0, begin = 0, end = 0; from < text.size() && find(text, from, begin, end); from = end)
    ranges.emplace_back(begin, end);
  return ranges;
}

// Nothing where the automaton has no room.
std::optional<Ranges> matches(const SplitAutomaton& automaton, std::string_view text) {
  bool too_large = false;
  const Ranges ranges = all_matches(text, [&](std::string_view own, size_t from, size_t& begin, size_t& end) {
    const auto found = automaton.find(own, from, begin, end);
    too_large |= found == SplitAutomaton::Found::too_large;
    return found == SplitAutomaton::Found::match;
  });
  return too_large ? std::nullopt : std::optional(ranges);
}

Ranges matches(const Regex& regex, std::string_view text) {
  return all_matches(text, [&](std::string_view own, size_t from, size_t& begin, size_t& end) {
    return regex.find(own, from, begin, end);
  });
}

std::unique_ptr<SplitAutomaton> automaton_of(const std::string& pattern) {
  auto program = pattern_program(as_pcre2_pattern(pattern));
  return program ? std::make_unique<SplitAutomaton>(std::move(*program)) : nullptr;
}

// The patterns behind llama.cpp's names.
std::vector<std::string> patterns_of(const char* name) {
  const auto description = pre_tokenizer_json(name, "file.gguf");
  std::vector<std::string> patterns;
  if (!description.contains("pretokenizers")) return {gpt2_pattern};
  for (const auto& step : description.at("pretokenizers"))
    if (step.at("type") == "Split") patterns.push_back(step.at("pattern").at("Regex"));
  return patterns;
}

constexpr const char* names_with_automata[] = {"llama-bpe", "qwen2",      "qwen35",   "gpt-2",
                                               "gpt-4o",    "tekken",     "dbrx",     "chatglm-bpe",
                                               "ufakzeka",  "seed-coder", "minicpm5", "spark2_5"};

std::string random_text(std::mt19937& random, const std::vector<std::string>& pieces, size_t most) {
  std::string text;
  for (size_t count = random() % most; count > 0; --count) text += pieces[random() % pieces.size()];
  return text;
}

TEST(SplitAutomaton, CutsTextsOfAllScriptsAsPcre2Does) {
  const std::vector<std::string> pieces = {"a",
                                           "Z",
                                           "word",
                                           "Word",
                                           "'s",
                                           "'LL",
                                           "'\u017f",
                                           "'re",
                                           "1",
                                           "234",
                                           " ",
                                           "  ",
                                           "\n",
                                           "\r\n",
                                           "\t",
                                           "!",
                                           "->",
                                           "/",
                                           "_",
                                           "é",
                                           "e\u0301",
                                           "語",
                                           "ひ",
                                           "\u0661",
                                           "Ⅻ",
                                           "½",
                                           "\u00a0",
                                           "\u3000",
                                           "\u180e",
                                           "\u2028",
                                           "😀",
                                           "👨‍👩‍👧",
                                           "ǅ",
                                           "ß",
                                           "\U00010D4A",
                                           "\u1C89",
                                           "한",
                                           "\u0e01\u0e34",
                                           std::string(1, '\0')};
  std::mt19937 random(7);
  for (const char* name : names_with_automata) {
    for (const std::string& pattern : patterns_of(name)) {
      SCOPED_TRACE(pattern);
      const auto automaton = automaton_of(pattern);
      ASSERT_TRUE(automaton) << name;
      const Regex regex = tokenizer_regex(pattern, "test");
      for (int i = 0; i < 300; ++i) {
        const std::string text = random_text(random, pieces, 40);
        ASSERT_EQ(matches(*automaton, text), std::optional(matches(regex, text))) << text;
      }
    }
  }
}

TEST(SplitAutomaton, KnowsEveryCharacterAsPcre2Does) {
  std::string text;
  for (char32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xD800 && c <= 0xDFFF) continue;
    append_code_point(text, c);
    if (c % 7 == 0) text += "a";
    if (c % 11 == 0) text += " ";
  }
  for (const char* name : {"llama-bpe", "gpt-2", "gpt-4o"}) {
    const std::string pattern = patterns_of(name)[0];
    EXPECT_TRUE(matches(*automaton_of(pattern), text) == matches(tokenizer_regex(pattern, "test"), text)) << name;
  }
}

// Patterns of a few letters, all constructs nested in one another.
std::string random_pattern(std::mt19937& random, int depth) {
  static const std::vector<std::string> sets = {"a", "b", "c", "[ab]", "[^a]", "(?i:b)", R"(\s)", "[^\\s]", R"(\p{L})"};
  static const std::vector<std::string> counts = {"", "", "", "?", "*", "+", "{2}", "{1,3}", "{2,}"};
  std::string pattern;
  for (size_t alternative = random() % 3 + 1; alternative > 0; --alternative) {
    for (size_t part = random() % 3 + 1; part > 0; --part) {
      const auto choice = random() % 8;
      if (choice == 0) {
        pattern += (random() % 2 ? "(?!" : "(?=") + sets[random() % sets.size()] + ")";
      } else if (choice < 3 && depth > 0) {
        pattern += "(?:" + random_pattern(random, depth - 1) + ")" + counts[random() % counts.size()];
      } else {
        pattern += sets[random() % sets.size()] + counts[random() % counts.size()];
      }
    }
    if (alternative > 1) pattern += "|";
  }
  return pattern;
}

TEST(SplitAutomaton, HasTheMatchesOfAnyPattern) {
  std::mt19937 random(11);
  int tried = 0;
  for (int i = 0; i < 1500; ++i) {
    const std::string pattern = random_pattern(random, 2);
    const auto automaton = automaton_of(pattern);
    if (!automaton) continue;  // it matches nothing at all, or repeats that
    const Regex regex = tokenizer_regex(pattern, "test");
    for (int j = 0; j < 10; ++j) {
      const std::string text = random_text(random, {"a", "b", "c", "B", " ", "\n", "é"}, 20);
      const auto found = matches(*automaton, text);
      if (!found) continue;
      ASSERT_EQ(*found, matches(regex, text)) << pattern << " in " << text;
      ++tried;
    }
  }
  EXPECT_GT(tried, 5000);
}

TEST(SplitPattern, LeavesToPcre2WhatIsBeyondAnAutomaton) {
  for (const char* pattern : {"(?<=a)b", "(?=ab)a", "a+?", "a++b", R"((a)\1)", "a*", "b$", "^a", R"(\bword)", "(?i)a",
                              R"(\X)", "[[:alpha:]]", "(?:a?)*", "a{1,2000}{1,2000}", R"(\Qa\E)"}) {
    EXPECT_FALSE(pattern_program(pattern)) << pattern;
  }
  const SplitPattern behind("(?<=a)b", "test");
  size_t begin = 0, end = 0;
  ASSERT_TRUE(behind.find("bab", 0, begin, end));
  EXPECT_EQ(begin, 2u);
  EXPECT_FALSE(behind.find("bbb", 0, begin, end));
  EXPECT_THROW(SplitPattern("(unclosed", "test"), ConfigError);
}

// A pattern that must remember where each of the last 15 letters was an a has 2^15 states.
TEST(SplitPattern, IsMatchedByPcre2WhereAnAutomatonGrowsTooLarge) {
  const std::string pattern = "(?:[ab]*a[ab]{14}|b)c";
  const SplitPattern split(pattern, "test");
  ASSERT_TRUE(split.has_automaton());
  const Regex regex = tokenizer_regex(pattern, "test");
  std::mt19937 random(3);
  for (int i = 0; i < 20; ++i) {
    const std::string text = random_text(random, {"a", "b", "aab", "c"}, 300);
    EXPECT_EQ(all_matches(text, [&](auto&&... arguments) { return split.find(arguments...); }), matches(regex, text));
  }
}

TEST(SplitPattern, MayBeUsedByManyThreadsAtOnce) {
  const std::string pattern = patterns_of("llama-bpe")[0];
  const auto automaton = automaton_of(pattern);
  std::string text;
  for (char32_t c = 0x20; c < 0x3000; c += 3) append_code_point(text, c);
  const Ranges expected = matches(tokenizer_regex(pattern, "test"), text);
  std::vector<std::optional<Ranges>> found(4);
  std::vector<std::thread> threads;
  for (auto& ranges : found) threads.emplace_back([&] { ranges = matches(*automaton, text); });
  for (std::thread& thread : threads) thread.join();
  for (const auto& ranges : found) EXPECT_TRUE(ranges == expected);
}

}  // namespace
}  // namespace lathe::data
