// Tokens that are found in the text before anything else happens to it: control tokens and the user's own.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizer/tokenizer.h"

namespace lathe::data {

// The fields of tokenizer.json's "added_tokens".
struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool special = false;
  bool normalized = false;   // looked for in the normalised text
  bool single_word = false;  // not next to a letter, digit or underscore
  bool lstrip = false;       // swallows white space before it
  bool rstrip = false;       // and after it
};

// A set of strings with the longest one that begins at a position (a trie over bytes).
class AddedTokenMatcher {
 public:
  struct Match {
    size_t begin, end;  // what the match takes out of the text, stripped white space included
    const AddedToken* token;
  };

  AddedTokenMatcher() : nodes_(1) {}
  void add(const AddedToken& token, std::string_view content);
  bool empty() const { return tokens_.empty(); }

  // Leftmost, longest matches in text, in order. Special tokens count only where they lie whole in one of `control`
  // (ranges of the text, sorted); any others everywhere.
  std::vector<Match> find(std::string_view text, std::span<const TextRange> control) const;

 private:
  struct Edge {
    unsigned char byte;
    int32_t node;
  };
  struct Node {
    std::vector<Edge> edges;
    int32_t token = -1;
  };

  std::vector<Node> nodes_;
  std::vector<AddedToken> tokens_;
  std::array<bool, 256> first_bytes_{};
};

}  // namespace lathe::data
