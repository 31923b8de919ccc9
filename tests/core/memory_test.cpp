#include "core/memory.h"

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <thread>
#include <vector>

#include "core/caching_allocator.h"
#include "core/error.h"
#include "core/random.h"
#include "core/tensor.h"

namespace lathe {
namespace {

constexpr auto weights = static_cast<size_t>(MemoryTag::weights);
constexpr auto activations = static_cast<size_t>(MemoryTag::activations);
constexpr int64_t mib = 1 << 20;

TEST(CachingAllocator, BlocksFitTheirRequestsClosely) {
  RandomStream random(1, RandomPurpose::test);
  int64_t last = 0;
  for (int i = 0; i < 20000; ++i) {
    const int64_t bytes = 1 + static_cast<int64_t>(random.below(uint64_t{1} << (6 + random.below(30))));
    const int64_t block = CachingAllocator::block_bytes(bytes);
    ASSERT_GE(block, bytes);
    ASSERT_EQ(block % 64, 0);
    ASSERT_LE(block - bytes, std::max<int64_t>(63, bytes / (bytes > 256 << 10 ? 16 : 4))) << bytes;
    ASSERT_EQ(CachingAllocator::block_bytes(block), block) << "a block's size is its own class";
  }
  for (int64_t bytes = 1; bytes < 5000; ++bytes) {
    const int64_t block = CachingAllocator::block_bytes(bytes);
    ASSERT_GE(block, last);
    last = block;
  }
}

TEST(CachingAllocator, FreedBlocksServeTheSameClassAgain) {
  CachingAllocator allocator(system_memory());
  for (const int64_t bytes : {int64_t{100}, 3 * mib}) {
    void* const first = allocator.allocate(bytes, MemoryTag::weights);
    allocator.deallocate(first, bytes, MemoryTag::weights);
    EXPECT_EQ(allocator.stats().cached_bytes, CachingAllocator::block_bytes(bytes));
    void* const second = allocator.allocate(bytes - 1, MemoryTag::activations);
    EXPECT_EQ(second, first);
    EXPECT_EQ(allocator.stats().cached_bytes, 0);
    allocator.deallocate(second, bytes - 1, MemoryTag::activations);
    allocator.release_cached();
  }
  EXPECT_EQ(allocator.stats().cached_bytes, 0);
  EXPECT_EQ(allocator.stats().total_live_bytes, 0);
  EXPECT_EQ(allocator.stats().allocation_count, 4);
}

TEST(CachingAllocator, TagsHavePeaksOfTheirOwnAndAShareOfTheTotals) {
  CachingAllocator allocator(system_memory());
  void* const a = allocator.allocate(mib, MemoryTag::weights);
  allocator.deallocate(a, mib, MemoryTag::weights);
  void* const b = allocator.allocate(2 * mib, MemoryTag::activations);
  const MemoryStats stats = allocator.stats();
  EXPECT_EQ(stats.peak_bytes[weights], mib);
  EXPECT_EQ(stats.peak_bytes[activations], 2 * mib);
  EXPECT_EQ(stats.total_peak_bytes, 2 * mib);
  EXPECT_EQ(stats.at_peak_bytes[weights], 0) << "the weights were gone when the total was highest";
  EXPECT_EQ(stats.at_peak_bytes[activations], 2 * mib);
  EXPECT_EQ(stats.reserved_peak_bytes, 3 * mib) << "the freed MiB was kept and counts";
  allocator.deallocate(b, 2 * mib, MemoryTag::activations);
  allocator.reset_peak();
  EXPECT_EQ(allocator.stats().total_peak_bytes, 0);
  EXPECT_EQ(allocator.stats().peak_bytes[activations], 0);
  EXPECT_EQ(allocator.stats().reserved_peak_bytes, 3 * mib);
}

TEST(CachingAllocator, APoolsBlocksServeNobodyElseUntilItIsDropped) {
  CachingAllocator allocator(system_memory());
  const int64_t pool = allocator.make_pool(), bytes = 4096;
  EXPECT_EQ(allocator.open_pool(pool), 0);
  void* const kept = allocator.allocate(bytes, MemoryTag::activations);
  void* const live = allocator.allocate(bytes, MemoryTag::activations);
  allocator.deallocate(kept, bytes, MemoryTag::activations);
  void* const again = allocator.allocate(bytes, MemoryTag::weights);
  EXPECT_EQ(again, kept);
  EXPECT_EQ(allocator.open_pool(0), pool);
  allocator.deallocate(again, bytes, MemoryTag::weights);
  EXPECT_EQ(allocator.stats().cached_bytes, 0);
  EXPECT_EQ(allocator.stats().total_live_bytes, 2 * bytes) << "what the pool keeps is held";
  EXPECT_EQ(allocator.stats().live_bytes[static_cast<size_t>(MemoryTag::workspace)], bytes);
  void* const other = allocator.allocate(bytes, MemoryTag::activations);
  EXPECT_NE(other, kept);
  allocator.release_cached();
  allocator.drop_pool(pool);
  EXPECT_EQ(allocator.stats().cached_bytes, bytes);
  void* const freed = allocator.allocate(bytes, MemoryTag::activations);
  EXPECT_EQ(freed, kept);
  for (void* const block : {live, other, freed}) allocator.deallocate(block, bytes, MemoryTag::activations);
  EXPECT_EQ(allocator.stats().total_live_bytes, 0);
  EXPECT_EQ(allocator.stats().cached_bytes, 3 * bytes);
}

TEST(CachingAllocator, APoolsFreeBlocksAreNoReasonForALargerCache) {
  CachingAllocator allocator(system_memory());
  const int64_t pool = allocator.make_pool();
  allocator.open_pool(pool);
  for (const int64_t size : {100 * mib, 80 * mib, 60 * mib})
    allocator.deallocate(allocator.allocate(size, MemoryTag::activations), size, MemoryTag::activations);
  allocator.open_pool(0);
  EXPECT_EQ(allocator.stats().total_live_bytes, 240 * mib);
  allocator.drop_pool(pool);
  void* const other = allocator.allocate(40 * mib, MemoryTag::activations);
  EXPECT_LE(allocator.stats().total_live_bytes + allocator.stats().cached_bytes, (100 + 16) * mib);
  allocator.deallocate(other, 40 * mib, MemoryTag::activations);
}

// Batches whose length changes ask for ever new classes; what was freed long ago must go back.
TEST(CachingAllocator, TheCacheStaysNearTheHighestLiveTotal) {
  CachingAllocator allocator(system_memory());
  for (int64_t bytes = mib; bytes < 200 * mib; bytes += bytes / 16) {
    allocator.deallocate(allocator.allocate(bytes, MemoryTag::activations), bytes, MemoryTag::activations);
  }
  const MemoryStats stats = allocator.stats();
  EXPECT_LE(stats.reserved_peak_bytes, stats.total_peak_bytes + std::max(16 * mib, stats.total_peak_bytes / 8));
}

TEST(CachingAllocator, ALimitCountsTheCacheAndGivesItBackFirst) {
  CachingAllocator allocator(system_memory());
  allocator.set_limit(4 * mib);
  allocator.deallocate(allocator.allocate(3 * mib, MemoryTag::weights), 3 * mib, MemoryTag::weights);
  void* const block = allocator.allocate(2 * mib, MemoryTag::activations);  // 3 cached + 2 would exceed 4
  EXPECT_EQ(allocator.stats().cached_bytes, 0);
  try {
    allocator.allocate(2 * mib + 1, MemoryTag::kv_cache);
    FAIL();
  } catch (const ResourceError& error) {
    const std::string what = error.what();
    EXPECT_NE(what.find("2097153 bytes asked for kv_cache"), std::string::npos) << what;
    EXPECT_NE(what.find("2097152 bytes free under the limit of 4194304 bytes"), std::string::npos) << what;
    EXPECT_NE(what.find("activations"), std::string::npos) << what;
  }
  void* const rest = allocator.allocate(2 * mib, MemoryTag::kv_cache);
  allocator.deallocate(block, 2 * mib, MemoryTag::activations);
  allocator.deallocate(rest, 2 * mib, MemoryTag::kv_cache);
  allocator.set_limit(mib);
  EXPECT_LE(allocator.stats().cached_bytes, mib);
}

// A source that gives only so many blocks, and counts them.
struct Scarce {
  static inline int left = 0;
  static inline std::map<void*, int64_t> given;
  static void* take(int64_t bytes) {
    if (left == 0) return nullptr;
    --left;
    void* const block = system_memory().take(bytes);
    given[block] = bytes;
    return block;
  }
  static void give(void* block, int64_t bytes) {
    EXPECT_EQ(given.at(block), bytes);
    given.erase(block);
    ++left;
    system_memory().give(block, bytes);
  }
  static BlockSource source() {
    return {.device = "scarce", .take = take, .give = give, .free_bytes = [] { return int64_t{12}; }};
  }
};

TEST(CachingAllocator, ReleasesItsCacheBeforeItFailsAndLeaksNothing) {
  Scarce::left = 1;
  {
    CachingAllocator allocator(Scarce::source());
    allocator.deallocate(allocator.allocate(1000, MemoryTag::weights), 1000, MemoryTag::weights);
    void* const block = allocator.allocate(5000, MemoryTag::weights);  // needs the one block that is cached
    EXPECT_THROW(allocator.allocate(5000, MemoryTag::weights), ResourceError);
    EXPECT_EQ(allocator.stats().total_live_bytes, CachingAllocator::block_bytes(5000)) << "a failure counts nothing";
    allocator.deallocate(block, 5000, MemoryTag::weights);
  }
  EXPECT_TRUE(Scarce::given.empty());
}

TEST(CachingAllocator, NothingAndTooMuch) {
  CachingAllocator allocator(system_memory());
  void* const nothing = allocator.allocate(0, MemoryTag::other);
  EXPECT_NE(nothing, nullptr);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(nothing) % 64, 0u);
  allocator.deallocate(nothing, 0, MemoryTag::other);
  EXPECT_EQ(allocator.stats().total_live_bytes, 0);
  EXPECT_THROW(allocator.allocate(-1, MemoryTag::other), ResourceError);
  EXPECT_THROW(allocator.allocate(int64_t{1} << 60, MemoryTag::other), ResourceError);
}

TEST(CachingAllocator, ThreadsNeverShareALiveBlock) {
  CachingAllocator allocator(system_memory());
  const auto churn = [&](uint64_t seed) {
    RandomStream random(seed, RandomPurpose::test);
    std::vector<std::pair<unsigned char*, int64_t>> live;
    for (int i = 0; i < 4000; ++i) {
      if (live.size() < 20 && random.uniform() < 0.6f) {
        const auto bytes = static_cast<int64_t>(1 + random.below(3000));
        auto* const block = static_cast<unsigned char*>(allocator.allocate(bytes, MemoryTag::workspace));
        std::memset(block, static_cast<int>(seed), static_cast<size_t>(bytes));
        live.emplace_back(block, bytes);
      } else if (!live.empty()) {
        const auto [block, bytes] = live.back();
        live.pop_back();
        for (int64_t at = 0; at < bytes; ++at) {
          if (block[at] != seed) throw std::runtime_error("another thread wrote into a live block");
        }
        allocator.deallocate(block, bytes, MemoryTag::workspace);
      }
    }
    for (const auto& [block, bytes] : live) allocator.deallocate(block, bytes, MemoryTag::workspace);
  };
  std::vector<std::thread> threads;
  for (uint64_t seed = 1; seed <= 4; ++seed) threads.emplace_back(churn, seed);
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(allocator.stats().total_live_bytes, 0);
}

#if defined(__SANITIZE_ADDRESS__)
// The cache must not hide from AddressSanitizer what malloc would show it.
TEST(CachingAllocatorDeathTest, FreedBlocksAndRoundedEndsArePoisoned) {
  CachingAllocator allocator(system_memory());
  for (const int64_t bytes : {int64_t{100}, 3 * mib + 1}) {
    auto* const block = static_cast<volatile char*>(allocator.allocate(bytes, MemoryTag::other));
    EXPECT_DEATH(block[bytes] = 1, "use-after-poison");
    allocator.deallocate(const_cast<char*>(block), bytes, MemoryTag::other);
    EXPECT_DEATH(block[0] = 1, "use-after-poison");
  }
}
#endif

TEST(MemoryTagScope, SetsTheTagOfThisThreadUntilItEnds) {
  EXPECT_EQ(MemoryTagScope::current(), MemoryTag::activations);
  {
    const MemoryTagScope outer(MemoryTag::weights);
    {
      const MemoryTagScope inner(MemoryTag::optimizer);
      EXPECT_EQ(MemoryTagScope::current(), MemoryTag::optimizer);
      std::thread([] { EXPECT_EQ(MemoryTagScope::current(), MemoryTag::activations); }).join();
    }
    EXPECT_EQ(MemoryTagScope::current(), MemoryTag::weights);
    const int64_t before = allocator_for({}).stats().live_bytes[weights];
    const Tensor tensor = Tensor::empty({256}, DType::f32);
    EXPECT_EQ(allocator_for({}).stats().live_bytes[weights], before + 1024);
    const int64_t kept = allocator_for({}).stats().live_bytes[activations];
    const Tensor given = Tensor::empty({256}, DType::f32, {}, MemoryTag::activations);
    EXPECT_EQ(allocator_for({}).stats().live_bytes[activations], kept + 1024) << "a given tag wins";
  }
  EXPECT_EQ(MemoryTagScope::current(), MemoryTag::activations);
}

TEST(Storage, HoldsWhatItWrapsAndFreesWhatItOwns) {
  auto owner = std::make_shared<std::vector<char>>(100);
  const std::weak_ptr<std::vector<char>> watch = owner;
  auto storage = Storage::wrap(owner->data(), 100, {}, owner);
  owner.reset();
  EXPECT_FALSE(watch.expired());
  storage.reset();
  EXPECT_TRUE(watch.expired());

  const int64_t before = allocator_for({}).stats().total_live_bytes;
  auto owned = Storage::allocate(1024, {}, MemoryTag::other);
  EXPECT_EQ(allocator_for({}).stats().total_live_bytes, before + 1024);
  owned.reset();
  EXPECT_EQ(allocator_for({}).stats().total_live_bytes, before);
}

TEST(MemoryTable, ListsTheTagsThatWereUsedAndTheProcess) {
  const Tensor tensor = Tensor::empty({mib}, DType::f32, {}, MemoryTag::kv_cache);
  const std::string table = memory_table(Device{});
  EXPECT_NE(table.find("MiB on cpu"), std::string::npos) << table;
  EXPECT_NE(table.find("kv_cache                4.0          4.0"), std::string::npos) << table;
  EXPECT_EQ(table.find("gradients"), std::string::npos) << table;
  for (const char* line : {"total", "with cache", "process RSS"}) {
    EXPECT_NE(table.find(line), std::string::npos) << table;
  }
}

TEST(ProcessPeakRss, GrowsWithTouchedMemory) {
  const int64_t before = process_peak_rss_bytes();
  ASSERT_GT(before, 0);
  // More than the peak so far, so that memory freed by earlier tests cannot hide it.
  const Tensor tensor = Tensor::empty({before + 32 * mib}, DType::u8);
  std::memset(tensor.raw(), 1, static_cast<size_t>(tensor.nbytes()));
  EXPECT_GE(process_peak_rss_bytes(), before + 32 * mib);
}

TEST(DeviceMemory, ARegisteredDeviceAllocatesAndFills) {
  static CachingAllocator allocator(system_memory());
  static int fills = 0;
  EXPECT_THROW(allocator_for({DeviceKind::simt, 0}), ResourceError);
  register_device_memory(DeviceKind::simt, {.allocator = [](int) -> Allocator& { return allocator; },
                                            .fill_zero =
                                                [](Device device, void* pointer, int64_t bytes) {
                                                  EXPECT_EQ(device.kind, DeviceKind::simt);
                                                  std::memset(pointer, 0, static_cast<size_t>(bytes));
                                                  ++fills;
                                                }});
  {
    const Tensor tensor = Tensor::zeros({16}, DType::f32, {DeviceKind::simt, 0});
    EXPECT_EQ(allocator.stats().total_live_bytes, 64);
    EXPECT_EQ(fills, 1);
    EXPECT_THROW(tensor.clone(), ShapeError);
  }
  EXPECT_EQ(allocator.stats().total_live_bytes, 0);
  register_device_memory(DeviceKind::simt, {});
}

}  // namespace
}  // namespace lathe
