#include "core/huge_pages.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cstring>
#include <vector>

#include "core/caching_allocator.h"

namespace lathe {
namespace {

constexpr int64_t page = 4096;

// How many of the pages that lie whole in it are resident; -1 where they are not mapped.
int64_t resident_pages(char* block, int64_t bytes) {
  const int64_t before = (page - static_cast<int64_t>(reinterpret_cast<uintptr_t>(block)) % page) % page;
  const int64_t pages = (bytes - before) / page;
  std::vector<unsigned char> flags(static_cast<size_t>(pages));
  if (::mincore(block + before, static_cast<size_t>(pages * page), flags.data()) != 0) return -1;
  int64_t count = 0;
  for (const unsigned char flag : flags) count += flag & 1;
  return count;
}

TEST(HugePageBlocks, LieSideBySideAndGoBackWithTheLast) {
  HugePageBlocks blocks;
  std::vector<char*> taken;
  constexpr int64_t bytes = 200 * 1024;
  for (int i = 0; i < 200; ++i) {
    auto* const block = static_cast<char*>(blocks.take(bytes));
    ASSERT_NE(block, nullptr);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(block) % 64, 0u);
    std::memset(block, i, bytes);
    taken.push_back(block);
  }
  EXPECT_EQ(reinterpret_cast<uintptr_t>(taken[0]) % huge_page_bytes, 0u);
  EXPECT_EQ(taken[1], taken[0] + bytes);
  for (int i = 0; i < 200; ++i) {
    EXPECT_EQ(taken[static_cast<size_t>(i)][0], static_cast<char>(i));
    EXPECT_EQ(taken[static_cast<size_t>(i)][bytes - 1], static_cast<char>(i));
  }
  for (char* const block : taken) EXPECT_TRUE(blocks.give(block, bytes));
  for (char* const block : taken) EXPECT_EQ(resident_pages(block, bytes), -1) << "still mapped";
}

TEST(HugePageBlocks, GoBackBeforeTheirNeighbours) {
  HugePageBlocks blocks;
  constexpr int64_t small = 64 * 1024;
  for (const int64_t bytes : {int64_t{300} << 10, int64_t{40} << 20}) {
    char* const first = static_cast<char*>(blocks.take(small));
    char* const middle = static_cast<char*>(blocks.take(bytes));
    char* const last = static_cast<char*>(blocks.take(small));
    std::memset(first, 1, small);
    std::memset(middle, 2, static_cast<size_t>(bytes));
    std::memset(last, 3, small);
    EXPECT_TRUE(blocks.give(middle, bytes));
    EXPECT_LE(resident_pages(middle, bytes), 0);  // the larger one has a mapping of its own, which is gone
    EXPECT_EQ(first[small - 1], 1);
    EXPECT_EQ(last[0], 3);
    EXPECT_TRUE(blocks.give(first, small));
    EXPECT_TRUE(blocks.give(last, small));
  }
}

// A server that loads and unloads does not use up addresses.
TEST(HugePageBlocks, ServeTheirSizeAgain) {
  HugePageBlocks blocks;
  constexpr int64_t bytes = 3 << 20;
  void* const stays = blocks.take(bytes);
  void* const first = blocks.take(bytes);
  for (int i = 0; i < 100; ++i) {
    EXPECT_TRUE(blocks.give(first, bytes));
    ASSERT_EQ(blocks.take(bytes), first);
  }
  EXPECT_TRUE(blocks.give(first, bytes));
  EXPECT_NE(blocks.take(bytes / 2), first) << "another size";
  EXPECT_TRUE(blocks.give(stays, bytes));
}

TEST(HugePageBlocks, KnowWhatIsNotTheirs) {
  HugePageBlocks blocks;
  char other[64];
  EXPECT_FALSE(blocks.give(other, 64));
  void* const block = blocks.take(page);
  EXPECT_FALSE(blocks.give(other, 64));
  EXPECT_TRUE(blocks.give(block, page));
  EXPECT_FALSE(blocks.give(block, page)) << "its memory is gone";
}

TEST(HugePageBlocks, HoldTheWeightsOfAnAllocator) {
  CachingAllocator allocator(system_memory());
  constexpr int64_t bytes = 300 << 10;
  auto* const first = static_cast<char*>(allocator.allocate(bytes, MemoryTag::weights));
  auto* const second = static_cast<char*>(allocator.allocate(bytes, MemoryTag::weights));
  EXPECT_EQ(second - first, CachingAllocator::block_bytes(bytes));
  allocator.deallocate(first, bytes, MemoryTag::weights);
  EXPECT_EQ(allocator.allocate(bytes, MemoryTag::activations), first) << "what is free serves whoever asks";
  allocator.deallocate(first, bytes, MemoryTag::activations);
  allocator.deallocate(second, bytes, MemoryTag::weights);
}

}  // namespace
}  // namespace lathe
