// Which tokens a grammar lets through next. Masks are made by walking the vocabulary's bytes, sorted, through the
// automaton, and kept. One thread's.
#pragma once

#include <bitset>
#include <cstdint>
#include <list>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "data/tokenizer/tokenizer.h"
#include "serve/engine/grammar/automaton.h"

namespace lathe::engine {

// What each token adds to a text, sorted by its bytes. Control tokens and those without bytes are left out.
class TokenBytes {
 public:
  // Of the first `vocab_size` ids, those that the model has.
  TokenBytes(const data::Tokenizer& tokenizer, int64_t vocab_size);

  struct Token {
    int32_t id;
    int32_t shared;  // bytes that it begins with as the one before does
    std::string bytes;
  };
  const std::vector<Token>& sorted() const { return sorted_; }
  const std::string& bytes_of(int32_t id) const;  // empty for what is left out
  int64_t vocab_size() const { return static_cast<int64_t>(place_.size()); }
  // A byte of a range without a token of its own for which an answer might have to stop: one that goes on a character,
  // or any where the whole range has none. What only begins characters (SmolLM2 has no 0xF1 and 0xF2, of planes without
  // characters) leaves others to choose from.
  std::optional<int> needed_byte(uint8_t low, uint8_t high) const;

 private:
  std::vector<Token> sorted_;
  std::vector<int32_t> place_;  // of each id in sorted_, −1 for what is left out
  std::bitset<256> single_;
};

using TokenMask = std::vector<uint64_t>;  // a bit for each token
inline bool in_mask(const TokenMask& mask, int32_t token) {
  return (mask[static_cast<size_t>(token) / 64] >> (token % 64) & 1) != 0;
}

class TokenMasks {
 public:
  // `control_tokens`: ids of the grammar's. ConfigError where a byte of the grammar is no token by itself: a text might
  // end where no token goes on.
  TokenMasks(std::shared_ptr<const Grammar> grammar, std::shared_ptr<const TokenBytes> tokens,
             std::vector<int32_t> control_tokens = {});

  // Where a text stands. Costs nothing to copy.
  struct Position {
    int32_t state;
    int64_t generation;  // of the states' numbers
  };
  const Grammar& grammar() const { return *grammar_; }
  // After these tokens; all of them must have been let through.
  Position position_after(std::span<const int32_t> tokens);
  Position advanced(Position position, int32_t token);
  bool is_current(Position position) const { return position.generation == generation_; }
  // Whether the text may end here.
  bool may_end(Position position) const { return automaton_.accepts(position.state); }

  // The tokens that may come next; none where the text can only end. A grammar that takes too long to walk lets
  // through those that were found within a bounded number of steps, every single byte first: the same ones each time.
  struct Mask {
    TokenMask tokens;
    bool empty = true;
  };
  const Mask& mask(Position position);

  // Between steps: forgets masks and states where they have become many.
  void trim();

 private:
  Mask walk(int32_t start);

  std::shared_ptr<const Grammar> grammar_;
  std::shared_ptr<const TokenBytes> tokens_;
  std::vector<int32_t> control_tokens_;
  Automaton automaton_;
  std::unordered_map<int32_t, Mask> masks_;  // by state
  std::vector<int64_t> last_walk_;           // of each state
  int64_t walks_ = 0, generation_ = 0;
};

// The masks of the grammars that were asked for lately, so that requests with the same one share them.
class RecentGrammars {
 public:
  // The tokenizer may be null: ConfigError when a grammar comes all the same.
  RecentGrammars(std::shared_ptr<const data::Tokenizer> tokenizer, int64_t vocab_size)
      : tokenizer_(std::move(tokenizer)), vocab_size_(vocab_size) {}
  std::shared_ptr<TokenMasks> masks_of(const std::shared_ptr<const Grammar>& grammar);
  void trim();  // all of them

 private:
  std::shared_ptr<const data::Tokenizer> tokenizer_;
  int64_t vocab_size_;
  std::shared_ptr<const TokenBytes> bytes_;        // made for the first grammar
  std::list<std::shared_ptr<TokenMasks>> recent_;  // the latest first
};

}  // namespace lathe::engine
