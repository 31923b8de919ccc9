// The allocator behind every device: size classes, a bounded cache of freed blocks, tags and a limit, over whatever
// gives raw blocks (the system, cudaMalloc). Free blocks of a pool count as live workspace: nobody else can have them.
// They are no reason to keep a larger cache, though.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/memory.h"

namespace lathe {

struct BlockSource {
  std::string device;                              // for messages: "cpu", "cuda:0"
  void* (*take)(int64_t bytes) = nullptr;          // aligned to 64 bytes; nullptr when there is no memory
  void* (*take_weights)(int64_t bytes) = nullptr;  // the same for weights, where it differs
  void (*give)(void* block, int64_t bytes) = nullptr;
  int64_t (*free_bytes)() = nullptr;   // what the device could still give, for messages
  bool host_memory = true;             // the CPU may touch it (freed blocks are poisoned under ASan)
  bool (*work_is_queued)() = nullptr;  // it may still use a block that was freed: nothing is poisoned then
};

class CachingAllocator final : public Allocator {
 public:
  explicit CachingAllocator(BlockSource source);
  ~CachingAllocator() override;  // gives the cache back; live blocks are the owner's fault
  CachingAllocator(const CachingAllocator&) = delete;
  CachingAllocator& operator=(const CachingAllocator&) = delete;

  void* allocate(int64_t bytes, MemoryTag tag) override;
  void deallocate(void* pointer, int64_t bytes, MemoryTag tag) override;
  MemoryStats stats() const override;
  void reset_peak() override;
  void release_cached() override;
  void set_limit(int64_t bytes) override;
  int64_t make_pool() override;
  int64_t open_pool(int64_t pool) override;
  void drop_pool(int64_t pool) override;

  // The block size that serves a request: 4 classes for each power of two, 16 from 256 KiB on.
  static int64_t block_bytes(int64_t bytes);

 private:
  struct CachedBlock {
    void* pointer;
    uint64_t freed_at;
  };
  void poison(void* pointer, int64_t bytes) const;
  void* take_pooled(int64_t block);
  bool give_to_pool(void* pointer, int64_t block, MemoryTag tag);
  void* take_cached(int64_t block);
  void* take_fresh(int64_t block, int64_t asked, MemoryTag tag);
  void release_until(int64_t cached_bytes);
  void count(int64_t block, MemoryTag tag);
  void move_live(int64_t block, MemoryTag from, MemoryTag to);
  [[noreturn]] void refuse(int64_t asked, MemoryTag tag, int64_t free_bytes) const;

  BlockSource source_;
  mutable std::mutex mutex_;
  MemoryStats stats_;
  std::map<int64_t, std::vector<CachedBlock>> cache_;  // by block size; in each, the block freed last stands last
  int64_t limit_ = 0;
  int64_t highest_live_ = 0;  // the bound of the cache, without pools' free blocks; reset_peak() leaves it alone
  int64_t pool_free_bytes_ = 0;
  uint64_t frees_ = 0;
  int64_t pools_made_ = 0, open_pool_ = 0;
  std::unordered_map<void*, int64_t> pool_of_;                          // blocks of pools, live or free
  std::map<int64_t, std::map<int64_t, std::vector<void*>>> pool_free_;  // by pool, then by block size
};

// The table of a device's tags, without the process's own lines.
std::string memory_table(const MemoryStats& stats, const std::string& device);

// System memory: aligned_alloc for small blocks, mmap for large ones, so that what is given back is really gone.
BlockSource system_memory();

}  // namespace lathe
