#include "data/tokenizer/vocabulary.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <bit>
#include <cstdio>

namespace lathe::data {

Vocabulary::Vocabulary(size_t expected_tokens) {
  entries_.reserve(expected_tokens);
  text_.reserve(expected_tokens * 8);
  grow(std::bit_ceil(expected_tokens * 2 + 16));
}

uint64_t Vocabulary::hash_of(std::string_view token) { return XXH3_64bits(token.data(), token.size()); }

void Vocabulary::grow(size_t slots) {
  slots_.assign(slots, {});
  for (int32_t id = 0; id < size(); ++id) {
    if (!entries_[id].present) continue;
    const uint64_t hash = hash_of(token(id));
    size_t slot = hash & (slots - 1);
    while (slots_[slot].id >= 0) slot = (slot + 1) & (slots - 1);
    slots_[slot] = {static_cast<uint32_t>(hash >> 32), id};
  }
}

bool Vocabulary::insert(int32_t id, std::string_view token) {
  if (id < 0 || contains(id)) return false;
  if (used_ * 2 >= slots_.size()) grow(slots_.size() * 2);
  const uint64_t hash = hash_of(token);
  const size_t slot = slot_of(token, hash);
  if (slots_[slot].id >= 0) return false;
  if (id >= size()) entries_.resize(static_cast<size_t>(id) + 1);
  entries_[id] = {text_.size(), static_cast<uint32_t>(token.size()), true};
  text_ += token;
  slots_[slot] = {static_cast<uint32_t>(hash >> 32), id};
  ++used_;
  return true;
}

size_t Vocabulary::slot_of(std::string_view token, uint64_t hash) const {
  size_t slot = hash & (slots_.size() - 1);
  for (; slots_[slot].id >= 0; slot = (slot + 1) & (slots_.size() - 1))
    if (slots_[slot].hash == static_cast<uint32_t>(hash >> 32) && this->token(slots_[slot].id) == token) break;
  return slot;
}

std::optional<int32_t> Vocabulary::find(std::string_view token) const {
  const int32_t id = slots_[slot_of(token, hash_of(token))].id;
  return id >= 0 ? std::optional(id) : std::nullopt;
}

std::array<int32_t, 256> byte_token_ids(const Vocabulary& vocabulary) {
  std::array<int32_t, 256> ids;
  for (size_t byte = 0; byte < ids.size(); ++byte) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", static_cast<unsigned>(byte));
    ids[byte] = vocabulary.find(name).value_or(-1);
  }
  return ids;
}

std::string_view Vocabulary::token(int32_t id) const {
  if (!contains(id)) return {};
  return std::string_view(text_).substr(entries_[id].offset, entries_[id].length);
}

}  // namespace lathe::data
