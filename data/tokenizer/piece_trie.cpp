#include "data/tokenizer/piece_trie.h"

#include <algorithm>
#include <array>
#include <numeric>

namespace lathe::data {
namespace {

constexpr uint32_t block = 256;  // children of a node lie in one block, as their places differ in a byte alone
// So many blocks are looked through for room; older ones stay as full as they are (nine tenths).
constexpr size_t open_blocks = 16;

}  // namespace

// Depth first over the sorted pieces: those that share a beginning stand together.
class PieceTrie::Building {
 public:
  Building(PieceTrie& trie, const std::vector<std::string_view>& pieces, const std::vector<double>& scores)
      : trie_(trie), pieces_(pieces), scores_(scores), order_(pieces.size()) {
    std::iota(order_.begin(), order_.end(), 0);
    std::sort(order_.begin(), order_.end(), [&](uint32_t a, uint32_t b) {
      const int compared = pieces_[a].compare(pieces_[b]);
      return compared != 0 ? compared < 0 : a < b;
    });
  }

  void run() {
    add_block();
    used_[root] = true;
    std::vector<Range> open{{0, order_.size(), 0, root}};
    while (!open.empty()) {
      const Range range = open.back();
      open.pop_back();
      place_children(range, open);
    }
  }

 private:
  // Pieces order_[first, last) begin with the same `depth` bytes, which lead to `node`.
  struct Range {
    size_t first, last, depth;
    uint32_t node;
  };

  void add_block() {
    trie_.units_.resize(trie_.units_.size() + block);
    trie_.ids_.resize(trie_.units_.size(), -1);
    used_.resize(trie_.units_.size());
    free_.push_back(block);
  }

  void place_children(Range range, std::vector<Range>& open) {
    for (; range.first < range.last && pieces_[order_[range.first]].size() == range.depth; ++range.first) {
      if (range.depth == 0) continue;
      const uint32_t id = order_[range.first];
      trie_.units_[range.node].score = scores_[id];
      trie_.units_[range.node].base |= is_piece;
      trie_.ids_[range.node] = static_cast<int32_t>(id);
    }
    if (range.first == range.last) return;
    count_ = 0;
    for (size_t at = range.first; at < range.last; ++at) {
      const auto byte = static_cast<unsigned char>(pieces_[order_[at]][range.depth]);
      if (count_ > 0 && bytes_[count_ - 1] == byte) continue;
      bytes_[count_] = byte;
      firsts_[count_++] = at;
    }
    firsts_[count_] = range.last;
    const uint32_t base = base_with_room();
    trie_.units_[range.node].base |= base;
    for (size_t i = 0; i < count_; ++i) {
      const uint32_t child = base ^ bytes_[i];
      trie_.units_[child].parent = range.node;
      used_[child] = true;
      --free_[child / block];
      open.push_back({firsts_[i], firsts_[i + 1], range.depth + 1, child});
    }
  }

  // A base for which the places of all bytes_ are free.
  uint32_t base_with_room() {
    const size_t blocks = free_.size();
    for (size_t b = blocks > open_blocks ? blocks - open_blocks : 0; b < blocks; ++b) {
      if (free_[b] < count_) continue;
      const auto begin = static_cast<uint32_t>(b) * block;
      for (uint32_t place = begin; place < begin + block; ++place) {
        const uint32_t base = place ^ bytes_[0];
        const auto is_free = [&](unsigned char byte) { return !used_[base ^ byte]; };
        if (std::all_of(bytes_.begin(), bytes_.begin() + static_cast<std::ptrdiff_t>(count_), is_free)) return base;
      }
    }
    const auto begin = static_cast<uint32_t>(trie_.units_.size());
    add_block();
    return begin;
  }

  PieceTrie& trie_;
  const std::vector<std::string_view>& pieces_;
  const std::vector<double>& scores_;
  std::vector<uint32_t> order_;
  std::vector<bool> used_;
  std::vector<uint32_t> free_;  // places of each block
  std::array<unsigned char, 256> bytes_{};
  std::array<size_t, 257> firsts_{};
  size_t count_ = 0;
};

PieceTrie::PieceTrie(const std::vector<std::string_view>& pieces, const std::vector<double>& scores) {
  Building(*this, pieces, scores).run();
}

}  // namespace lathe::data
