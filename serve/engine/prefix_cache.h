// Which full page of the cache holds which tokens. What a page holds depends on everything before it: a page is known
// by its parent (the page before it), its own tokens, and whom it was computed for. It is found by a chained keyed hash
// and believed after a comparison of all three, so that a colliding hash costs time and nothing else.
//
// Whoever owns a page owns its parent, and lets go of the page first: so a page is given to others (PagePool::take)
// before its parent is, and no parent here is ever a page that holds something else.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace lathe::engine {

// Pages are shared between requests of one adapter and one salt.
struct PrefixScope {
  std::string adapter, cache_salt;
  bool operator==(const PrefixScope&) const = default;
};

class PrefixCache {
 public:
  PrefixCache(int64_t pages, int64_t page_size);  // its hash has a random key

  // The pages of the longest known beginning of `tokens`, in order.
  std::vector<int32_t> find(const PrefixScope& scope, std::span<const int32_t> tokens) const;

  static constexpr int32_t no_parent = -1;
  // From now on `page` holds these tokens after those of its parent. Where that is known of a page already, nothing
  // changes and the answer is that page, `page` otherwise.
  int32_t insert(int32_t page, int32_t parent, std::span<const int32_t> tokens,
                 const std::shared_ptr<const PrefixScope>& scope);

  bool contains(int32_t page) const { return pages_[static_cast<size_t>(page)].scope != nullptr; }
  void forget(int32_t page);  // nothing where it is not known
  // The known pages, with an adapter those of its scopes.
  std::vector<int32_t> pages() const;
  std::vector<int32_t> pages_of_adapter(std::string_view adapter) const;

 private:
  struct Page {
    uint64_t hash = 0;
    int32_t parent = no_parent;
    std::vector<int32_t> tokens;
    std::shared_ptr<const PrefixScope> scope;  // null: not known
  };
  uint64_t hash_of_scope(const PrefixScope& scope) const;
  uint64_t hash_after(uint64_t parent, std::span<const int32_t> tokens) const;
  // The page known by all of this, or −1.
  int32_t look_up(uint64_t hash, int32_t parent, std::span<const int32_t> tokens, const PrefixScope& scope) const;

  int64_t page_size_;
  uint64_t key_;
  std::vector<Page> pages_;
  std::unordered_multimap<uint64_t, int32_t> by_hash_;
};

}  // namespace lathe::engine
