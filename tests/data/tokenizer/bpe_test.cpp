// Merges of whole texts: cut where no merge reaches, the tokens are those of merging the text as it is.
#include "data/tokenizer/bpe.h"

#include <gtest/gtest.h>

#include <random>
#include <set>
#include <string>

#include "data/tokenizer/utf8.h"

namespace lathe::data {
namespace {

// Letters, spaces as SentencePiece writes them, and what a vocabulary may lack.
const std::vector<std::string> characters = {"a", "b", "c", "d", "e", "é", "語", "▁", "Z"};

struct RandomBpe {
  Vocabulary vocabulary;
  std::vector<Bpe::Merge> merges;
};

// All characters but the last, the bytes' tokens, and merges of tokens there are.
RandomBpe random_bpe(std::mt19937& random, size_t merge_count) {
  RandomBpe made;
  int32_t next = 0;
  std::vector<int32_t> symbols;
  for (size_t i = 0; i + 1 < characters.size(); ++i) {
    symbols.push_back(next);
    made.vocabulary.insert(next++, characters[i]);
  }
  for (int byte = 0; byte < 256; ++byte) {
    constexpr const char* digits = "0123456789ABCDEF";
    made.vocabulary.insert(next++, std::string("<0x") + digits[byte / 16] + digits[byte % 16] + ">");
  }
  made.vocabulary.insert(next++, "<unk>");
  const auto any = [&] { return symbols[random() % symbols.size()]; };
  while (made.merges.size() < merge_count) {
    const int32_t left = any(), right = any();
    const std::string joined = std::string(made.vocabulary.token(left)) + std::string(made.vocabulary.token(right));
    if (joined.size() > 12) continue;
    const auto known = made.vocabulary.find(joined);
    const int32_t result = known.value_or(next);
    if (!known) {
      made.vocabulary.insert(next++, joined);
      symbols.push_back(result);
    }
    made.merges.push_back({left, right, result});
  }
  return made;
}

// The definition, on all symbols of the text at once.
std::vector<int32_t> merged_as_a_whole(const RandomBpe& bpe, const std::string& text, const BpeSettings& settings) {
  std::vector<int32_t> ids;
  bool last_unknown = false;
  for (size_t at = 0; at < text.size();) {
    const std::string character = text.substr(at, code_point_length(text[at]));
    at += character.size();
    const auto id = bpe.vocabulary.find(character);
    if (!id && settings.byte_fallback) {
      for (const char byte : character) ids.push_back(byte_token_ids(bpe.vocabulary)[static_cast<unsigned char>(byte)]);
    } else if (id || !settings.fuse_unknown || !last_unknown) {
      ids.push_back(id.value_or(*settings.unknown_id));
    }
    last_unknown = !id && !settings.byte_fallback;
  }
  while (true) {
    size_t best = bpe.merges.size(), place = 0;
    for (size_t i = 0; i + 1 < ids.size(); ++i)
      for (size_t rank = 0; rank < bpe.merges.size(); ++rank) {
        if (bpe.merges[rank].left != ids[i] || bpe.merges[rank].right != ids[i + 1]) continue;
        size_t last = rank;  // a pair that comes twice has its last rank
        for (size_t other = rank; other < bpe.merges.size(); ++other)
          if (bpe.merges[other].left == ids[i] && bpe.merges[other].right == ids[i + 1]) last = other;
        if (last < best) best = last, place = i;
        break;
      }
    if (best == bpe.merges.size()) return ids;
    ids[place] = bpe.merges[best].result;
    ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(place) + 1);
  }
}

TEST(Bpe, PiecesOfATextGiveWhatTheWholeTextDoes) {
  std::mt19937 random(5);
  int cut = 0, tried = 0;
  for (int round = 0; round < 60; ++round) {
    const RandomBpe made = random_bpe(random, 2 + random() % 40);
    BpeSettings settings{.alphabet = BpeAlphabet::characters};
    settings.unknown_id = made.vocabulary.find("<unk>");
    settings.byte_fallback = round % 3 == 0;
    settings.fuse_unknown = round % 3 != 1;
    const Bpe bpe(settings, made.vocabulary, made.merges);
    std::vector<std::pair<int32_t, int32_t>> pairs;
    for (const Bpe::Merge& merge : made.merges) pairs.emplace_back(merge.left, merge.right);
    const MergeBoundaries boundaries(made.vocabulary, pairs);
    for (int i = 0; i < 20; ++i) {
      std::string text;
      for (size_t length = random() % 90; length > 0; --length) text += characters[random() % characters.size()];
      std::vector<WordToken> tokens;
      bpe.encode(text, made.vocabulary, tokens);
      std::vector<int32_t> ids;
      size_t end = 0;
      for (const WordToken& token : tokens) {
        EXPECT_EQ(token.begin, end) << "tokens cover the text";
        end = token.end;
        ids.push_back(token.id);
      }
      EXPECT_EQ(ids, merged_as_a_whole(made, text, settings)) << text;
      ++tried;
      if (!text.empty() && boundaries.next(text, 0) < text.size()) ++cut;
    }
  }
  EXPECT_GT(cut, tried / 2) << "the texts were cut";
}

TEST(MergeBoundaries, LieWhereNoMergeJoinsTheCharacters) {
  Vocabulary vocabulary;
  for (const char* token : {"▁", "a", "b", "▁a", "ab", "▁ab"}) vocabulary.insert(vocabulary.size(), token);
  const auto id = [&](const char* token) { return *vocabulary.find(token); };
  const std::vector<std::pair<int32_t, int32_t>> merges = {{id("▁"), id("a")}, {id("a"), id("b")}, {id("▁a"), id("b")}};
  const MergeBoundaries boundaries(vocabulary, merges);
  const std::string text = "▁ab▁abba";
  std::vector<size_t> found;
  for (size_t at = 0; at < text.size();) found.push_back(at = boundaries.next(text, at));
  EXPECT_EQ(found, (std::vector<size_t>{5, 10, 11, 12}));
  EXPECT_EQ(MergeBoundaries().next(text, 0), text.size());
}

}  // namespace
}  // namespace lathe::data
