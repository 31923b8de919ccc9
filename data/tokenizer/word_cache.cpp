#include "data/tokenizer/word_cache.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <atomic>
#include <cstring>
#include <utility>

namespace lathe::data {
namespace {

template <class Word>
bool same(const char* a, const char* b) {
  Word left, right;
  std::memcpy(&left, a, sizeof(Word));
  std::memcpy(&right, b, sizeof(Word));
  return left == right;
}

// Words are so short that calling memcmp takes as long as comparing them.
bool equal(const char* a, const char* b, size_t size) {
  if (size >= 8) {
    for (size_t at = 0; at + 8 < size; at += 8)
      if (!same<uint64_t>(a + at, b + at)) return false;
    return same<uint64_t>(a + size - 8, b + size - 8);
  }
  if (size >= 4) return same<uint32_t>(a, b) && same<uint32_t>(a + size - 4, b + size - 4);
  for (size_t at = 0; at < size; ++at)
    if (a[at] != b[at]) return false;
  return true;
}

}  // namespace

WordCache::WordCache() : entries_(entry_count) {}

WordCache& WordCache::of_this_thread() {
  thread_local WordCache cache;
  return cache;
}

uint32_t WordCache::new_owner() {
  static std::atomic<uint32_t> next{1};
  return next++;
}

size_t WordCache::slot_of(std::string_view word) const {
  return XXH3_64bits(word.data(), word.size()) % entry_count & ~size_t{1};
}

bool WordCache::holds(const Entry& entry, uint32_t owner, std::string_view word) {
  return entry.owner == owner && entry.length == word.size() && equal(entry.bytes, word.data(), word.size());
}

bool WordCache::append(uint32_t owner, std::string_view word, uint32_t base, std::vector<WordToken>& tokens) const {
  if (word.size() > room) return false;
  const Entry* entry = &entries_[slot_of(word)];
  if (!holds(*entry, owner, word) && !holds(*++entry, owner, word)) return false;
  const char* const ends = entry->bytes + entry->length;
  const char* id = ends + entry->count;
  uint32_t begin = base;
  for (size_t i = 0; i < entry->count; ++i, id += sizeof(int32_t)) {
    WordToken token{0, begin, base + static_cast<unsigned char>(ends[i])};
    std::memcpy(&token.id, id, sizeof(int32_t));
    tokens.push_back(token);
    begin = token.end;
  }
  return true;
}

void WordCache::put(uint32_t owner, std::string_view word, uint32_t base, std::span<const WordToken> tokens) {
  if (word.size() + 5 * tokens.size() > room) return;
  uint32_t begin = base;
  for (const WordToken& token : tokens) {
    if (token.begin != begin) return;
    begin = token.end;
  }
  const size_t slot = slot_of(word);
  entries_[slot + 1] = std::exchange(entries_[slot], {});  // the older one of the two goes
  Entry& entry = entries_[slot];
  entry.owner = owner;
  entry.length = static_cast<uint8_t>(word.size());
  entry.count = static_cast<uint8_t>(tokens.size());
  std::memcpy(entry.bytes, word.data(), word.size());
  char* const ends = entry.bytes + word.size();
  char* const ids = ends + tokens.size();
  for (size_t i = 0; i < tokens.size(); ++i) {
    ends[i] = static_cast<char>(tokens[i].end - base);
    std::memcpy(ids + i * sizeof(int32_t), &tokens[i].id, sizeof(int32_t));
  }
}

}  // namespace lathe::data
