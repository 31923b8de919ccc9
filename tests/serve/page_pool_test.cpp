// Pages and who finds them: owners, the order in which cached pages are given up, and exact keys.
#include "serve/engine/page_pool.h"

#include <gtest/gtest.h>

#include "serve/engine/prefix_cache.h"

namespace lathe::engine {
namespace {

using Pages = std::vector<int32_t>;

TEST(PagePool, APageIsFreeWhenItsLastOwnerLetsItGo) {
  PagePool pool(2);
  const int32_t page = pool.take();
  pool.hold(page);
  pool.release(page, PagePool::Afterwards::free);
  EXPECT_EQ(pool.free_count(), 1);
  pool.release(page, PagePool::Afterwards::free);
  EXPECT_EQ(pool.free_count(), 2);
}

TEST(PagePool, CachedPagesAreGivenUpLeastRecentlyUsedFirstAndOnlyWhenNoneIsFree) {
  PagePool pool(4);
  for (int i = 0; i < 3; ++i) pool.take();  // 0, 1, 2
  for (const int32_t page : {1, 0, 2}) pool.release(page, PagePool::Afterwards::cached);
  pool.hold(1);  // used again
  pool.release(1, PagePool::Afterwards::cached);
  EXPECT_EQ(pool.available(), 4);
  EXPECT_EQ((Pages{pool.take(), pool.take(), pool.take(), pool.take()}), (Pages{3, 0, 2, 1}));
  EXPECT_EQ(pool.available(), 0);
}

TEST(PagePool, AForgottenPageIsFree) {
  PagePool pool(2);
  pool.release(pool.take(), PagePool::Afterwards::cached);
  pool.forget(0);
  pool.forget(1);
  EXPECT_EQ(pool.free_count(), 2);
  EXPECT_EQ(pool.cached_count(), 0);
}

class Prefixes : public testing::Test {
 protected:
  PrefixCache cache{8, 2};
  std::shared_ptr<const PrefixScope> scope = std::make_shared<const PrefixScope>();
  Pages find(const Pages& tokens) const { return cache.find(*scope, tokens); }
};

TEST_F(Prefixes, TheLongestKnownBeginningIsFoundInWholePages) {
  const Pages tokens{5, 6, 7, 8, 9};
  EXPECT_EQ(find(tokens), Pages{});
  EXPECT_EQ(cache.insert(3, PrefixCache::no_parent, Pages{5, 6}, scope), 3);
  EXPECT_EQ(cache.insert(1, 3, Pages{7, 8}, scope), 1);
  EXPECT_EQ(find(tokens), (Pages{3, 1}));
  EXPECT_EQ(find({5, 6, 7}), (Pages{3}));
  EXPECT_EQ(find({5, 6, 7, 9}), (Pages{3}));
  EXPECT_EQ(find({7, 8}), Pages{}) << "what comes before is part of the key";
  cache.forget(1);
  EXPECT_EQ(find(tokens), (Pages{3}));
}

TEST_F(Prefixes, WhatIsKnownAlreadyKeepsItsPage) {
  EXPECT_EQ(cache.insert(3, PrefixCache::no_parent, Pages{5, 6}, scope), 3);
  EXPECT_EQ(cache.insert(4, PrefixCache::no_parent, Pages{5, 6}, scope), 3);
  EXPECT_FALSE(cache.contains(4));
}

TEST_F(Prefixes, AdaptersAndSaltsShareNothing) {
  const auto other = [](const char* adapter, const char* salt) {
    return std::make_shared<const PrefixScope>(PrefixScope{adapter, salt});
  };
  cache.insert(0, PrefixCache::no_parent, Pages{5, 6}, scope);
  cache.insert(1, PrefixCache::no_parent, Pages{5, 6}, other("a", ""));
  cache.insert(2, PrefixCache::no_parent, Pages{5, 6}, other("", "a"));
  EXPECT_EQ(find({5, 6}), Pages{0});
  EXPECT_EQ(cache.find({"a", ""}, Pages{5, 6}), Pages{1});
  EXPECT_EQ(cache.find({"", "a"}, Pages{5, 6}), Pages{2});
  EXPECT_EQ(cache.find({"b", ""}, Pages{5, 6}), Pages{});
  EXPECT_EQ(cache.pages_of_adapter("a"), Pages{1});
  EXPECT_EQ(cache.pages(), (Pages{0, 1, 2}));
}

}  // namespace
}  // namespace lathe::engine
