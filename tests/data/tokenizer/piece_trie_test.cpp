#include "data/tokenizer/piece_trie.h"

#include <gtest/gtest.h>

#include <map>
#include <string>

#include "core/random.h"

namespace lathe::data {
namespace {

struct Match {
  size_t end;
  int32_t id;
  double score;
  bool operator==(const Match&) const = default;
};

// Pieces of few different bytes (deep, narrow) and of all 256 (wide nodes, more than a block of children has room for).
TEST(PieceTrie, FindsAllPiecesThatBeginAtAPlaceShortestFirst) {
  RandomStream random(5, RandomPurpose::test);
  for (const uint64_t alphabet : {2, 7, 256}) {
    std::vector<std::string> texts;
    for (int i = 0; i < 4000; ++i) {
      std::string piece;
      for (uint64_t length = random.below(alphabet == 256 ? 4 : 12); length > 0; --length)
        piece += static_cast<char>(random.below(alphabet) * (256 / alphabet));
      texts.push_back(piece);
    }
    const std::vector<std::string_view> pieces(texts.begin(), texts.end());
    std::vector<double> scores;
    std::map<std::string_view, int32_t> last;  // of pieces that are spelled the same
    for (size_t id = 0; id < pieces.size(); ++id) {
      scores.push_back(-static_cast<double>(id) / 7);
      if (!pieces[id].empty()) last[pieces[id]] = static_cast<int32_t>(id);
    }
    const PieceTrie trie(pieces, scores);
    std::string text;
    for (int i = 0; i < 3000; ++i) text += static_cast<char>(random.below(alphabet) * (256 / alphabet));
    for (size_t begin = 0; begin < text.size(); ++begin) {
      std::vector<Match> found, expected;
      trie.pieces_at(text, begin, [&](size_t end, uint32_t node, double score) {
        found.push_back({end, trie.id(node), score});
      });
      for (size_t end = begin + 1; end <= text.size() && end <= begin + 12; ++end)
        if (const auto piece = last.find(std::string_view(text).substr(begin, end - begin)); piece != last.end())
          expected.push_back({end, piece->second, scores[static_cast<size_t>(piece->second)]});
      ASSERT_EQ(found, expected) << "at " << begin;
    }
  }
}

TEST(PieceTrie, WithoutPiecesFindsNone) {
  const PieceTrie trie({std::string_view()}, {0.0});
  trie.pieces_at("abc", 0, [](size_t, uint32_t, double) { ADD_FAILURE(); });
}

}  // namespace
}  // namespace lathe::data
