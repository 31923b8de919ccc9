// Tokens by id and ids by token.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace lathe::data {

class Vocabulary {
 public:
  explicit Vocabulary(size_t expected_tokens = 0);

  // False where the token or the id is taken already. Ids may come in any order and leave gaps.
  bool insert(int32_t id, std::string_view token);
  std::optional<int32_t> find(std::string_view token) const;
  // Empty for an id without a token. Valid while the vocabulary is neither changed nor moved.
  std::string_view token(int32_t id) const;
  bool contains(int32_t id) const { return id >= 0 && id < size() && entries_[id].present; }
  int32_t size() const { return static_cast<int32_t>(entries_.size()); }  // largest id + 1

 private:
  struct Entry {
    uint64_t offset = 0;
    uint32_t length = 0;
    bool present = false;
  };
  // A token's hash beside its id: other tokens are told apart without a look at their text.
  struct Slot {
    uint32_t hash = 0;
    int32_t id = -1;
  };
  void grow(size_t slots);
  static uint64_t hash_of(std::string_view token);
  // Where a token is, or the free slot that it would get.
  size_t slot_of(std::string_view token, uint64_t hash) const;

  std::string text_;  // every token, end to end: one allocation instead of one for each token
  std::vector<Entry> entries_;
  std::vector<Slot> slots_;  // open addressing, linear probing, at most half full; id -1 is free
  size_t used_ = 0;
};

// The ids of <0x00> … <0xFF>, SentencePiece's tokens for bytes; negative where there is none.
std::array<int32_t, 256> byte_token_ids(const Vocabulary& vocabulary);

}  // namespace lathe::data
