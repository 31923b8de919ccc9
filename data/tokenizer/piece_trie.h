// All pieces that begin at a place of a text, shortest first: a double array (Aoe 1989), whose step is one look into
// one line of the processor's cache. As a hash table of (node, byte) the same steps took a Unigram model twice as long.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace lathe::data {

class PieceTrie {
 public:
  PieceTrie() = default;
  // pieces[id] with scores[id]; of those that are spelled the same the last counts, empty ones do not. Time and memory
  // are linear in the pieces' bytes.
  PieceTrie(const std::vector<std::string_view>& pieces, const std::vector<double>& scores);

  // found(end, node, score) for each piece text[begin, end).
  template <class Found>
  void pieces_at(std::string_view text, size_t begin, const Found& found) const {
    uint32_t node = root;
    for (size_t end = begin; end < text.size();) {
      const uint32_t child = (units_[node].base & ~is_piece) ^ static_cast<unsigned char>(text[end++]);
      const Unit& unit = units_[child];
      if (unit.parent != node) return;
      if (unit.base & is_piece) found(end, child, unit.score);
      node = child;
    }
  }
  // Of a node that pieces_at gave.
  int32_t id(uint32_t node) const { return ids_[node]; }

 private:
  static constexpr uint32_t is_piece = 1u << 31, no_parent = ~0u, root = 0;
  struct Unit {
    uint32_t base = 0;  // of the node's children: unit base ^ byte is one where its parent is the node
    uint32_t parent = no_parent;
    double score = 0;
  };
  class Building;

  std::vector<Unit> units_;
  std::vector<int32_t> ids_;
};

}  // namespace lathe::data
