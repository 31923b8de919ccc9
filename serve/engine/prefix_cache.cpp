#include "serve/engine/prefix_cache.h"

#include <xxhash.h>

#include <algorithm>
#include <random>

namespace lathe::engine {

PrefixCache::PrefixCache(int64_t pages, int64_t page_size) : page_size_(page_size), pages_(static_cast<size_t>(pages)) {
  // Nobody can know which prompts collide. No result depends on it.
  std::random_device random;
  key_ = uint64_t{random()} << 32 | random();
}

std::vector<int32_t> PrefixCache::find(const PrefixScope& scope, std::span<const int32_t> tokens) const {
  std::vector<int32_t> found;
  uint64_t hash = hash_of_scope(scope);
  int32_t parent = no_parent;
  const auto size = static_cast<size_t>(page_size_);
  for (size_t first = 0; first + size <= tokens.size(); first += size) {
    const std::span<const int32_t> own = tokens.subspan(first, size);
    hash = hash_after(hash, own);
    parent = look_up(hash, parent, own, scope);
    if (parent < 0) break;
    found.push_back(parent);
  }
  return found;
}

int32_t PrefixCache::insert(int32_t page, int32_t parent, std::span<const int32_t> tokens,
                            const std::shared_ptr<const PrefixScope>& scope) {
  const uint64_t before = parent == no_parent ? hash_of_scope(*scope) : pages_[static_cast<size_t>(parent)].hash;
  const uint64_t hash = hash_after(before, tokens);
  const int32_t known = look_up(hash, parent, tokens, *scope);
  if (known >= 0) return known;
  pages_[static_cast<size_t>(page)] = {hash, parent, {tokens.begin(), tokens.end()}, scope};
  by_hash_.emplace(hash, page);
  return page;
}

void PrefixCache::forget(int32_t page) {
  Page& known = pages_[static_cast<size_t>(page)];
  if (known.scope == nullptr) return;
  const auto [begin, end] = by_hash_.equal_range(known.hash);
  by_hash_.erase(std::find_if(begin, end, [page](const auto& entry) { return entry.second == page; }));
  known = {};
}

std::vector<int32_t> PrefixCache::pages() const {
  std::vector<int32_t> all;
  for (size_t page = 0; page < pages_.size(); ++page)
    if (pages_[page].scope != nullptr) all.push_back(static_cast<int32_t>(page));
  return all;
}

std::vector<int32_t> PrefixCache::pages_of_adapter(std::string_view adapter) const {
  std::vector<int32_t> all = pages();
  std::erase_if(all, [&](int32_t page) { return pages_[static_cast<size_t>(page)].scope->adapter != adapter; });
  return all;
}

uint64_t PrefixCache::hash_of_scope(const PrefixScope& scope) const {
  return XXH64(scope.cache_salt.data(), scope.cache_salt.size(),
               XXH64(scope.adapter.data(), scope.adapter.size(), key_));
}

uint64_t PrefixCache::hash_after(uint64_t parent, std::span<const int32_t> tokens) const {
  return XXH64(tokens.data(), tokens.size_bytes(), parent);
}

int32_t PrefixCache::look_up(uint64_t hash, int32_t parent, std::span<const int32_t> tokens,
                             const PrefixScope& scope) const {
  const auto [begin, end] = by_hash_.equal_range(hash);
  for (auto entry = begin; entry != end; ++entry) {
    const Page& page = pages_[static_cast<size_t>(entry->second)];
    if (page.parent == parent && std::ranges::equal(page.tokens, tokens) && *page.scope == scope) return entry->second;
  }
  return -1;
}

}  // namespace lathe::engine
