#include "data/tokenizer/word_cache.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <atomic>
#include <cstring>

namespace lathe::data {

WordCache::WordCache() : entries_(8192) {}

WordCache& WordCache::of_this_thread() {
  thread_local WordCache cache;
  return cache;
}

uint64_t WordCache::new_owner() {
  static std::atomic<uint64_t> next{1};
  return next++;
}

size_t WordCache::slot_of(std::string_view word) const {
  return XXH3_64bits(word.data(), word.size()) % entries_.size();
}

bool WordCache::append(uint64_t owner, std::string_view word, uint32_t base, std::vector<WordToken>& tokens) const {
  if (word.size() > max_bytes) return false;
  const Entry& entry = entries_[slot_of(word)];
  if (entry.owner != owner || entry.length != word.size() || std::memcmp(entry.word, word.data(), word.size()) != 0)
    return false;
  for (size_t i = 0; i < entry.count; ++i)
    tokens.push_back({entry.ids[i], base + entry.begins[i], base + entry.ends[i]});
  return true;
}

void WordCache::put(uint64_t owner, std::string_view word, uint32_t base, std::span<const WordToken> tokens) {
  if (word.size() > max_bytes || tokens.size() > max_tokens) return;
  Entry& entry = entries_[slot_of(word)];
  entry.owner = owner;
  entry.length = static_cast<uint8_t>(word.size());
  entry.count = static_cast<uint8_t>(tokens.size());
  std::memcpy(entry.word, word.data(), word.size());
  for (size_t i = 0; i < tokens.size(); ++i) {
    entry.ids[i] = tokens[i].id;
    entry.begins[i] = static_cast<uint8_t>(tokens[i].begin - base);
    entry.ends[i] = static_cast<uint8_t>(tokens[i].end - base);
  }
}

}  // namespace lathe::data
