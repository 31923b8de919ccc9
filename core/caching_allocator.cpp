#include "core/caching_allocator.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <utility>

#include "core/error.h"

#if defined(__SANITIZE_ADDRESS__)
#define LATHE_ASAN
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define LATHE_ASAN
#endif
#endif
#if defined(LATHE_ASAN)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_UNPOISON_MEMORY_REGION(pointer, bytes) ((void)(pointer), (void)(bytes))
#endif

namespace lathe {
namespace {

constexpr int64_t alignment = 64;
constexpr int64_t large_bytes = 256 << 10;
constexpr int64_t cache_slack_bytes = 16 << 20;

alignas(alignment) std::byte nothing[alignment];  // where allocations of zero bytes point

size_t index_of(MemoryTag tag) { return static_cast<size_t>(tag); }

}  // namespace

int64_t CachingAllocator::block_bytes(int64_t bytes) {
  if (bytes <= alignment) return alignment;
  // [2^k, 2^(k+1)] is cut into equal classes, none of them finer than the alignment.
  const int exponent = std::bit_width(static_cast<uint64_t>(bytes - 1)) - 1;
  const int64_t classes = bytes > large_bytes ? 16 : 4;
  const int64_t step = std::max(alignment, (int64_t{1} << exponent) / classes);
  return (bytes + step - 1) / step * step;
}

CachingAllocator::CachingAllocator(BlockSource source) : source_(std::move(source)) {}

CachingAllocator::~CachingAllocator() { release_until(0); }

void* CachingAllocator::allocate(int64_t bytes, MemoryTag tag) {
  if (bytes == 0) return nothing;
  const std::lock_guard lock(mutex_);
  if (bytes < 0 || bytes > std::numeric_limits<int64_t>::max() / 4) refuse(bytes, tag, source_.free_bytes());
  const int64_t block = block_bytes(bytes);
  void* pointer = open_pool_ == 0 ? nullptr : take_pooled(block);
  if (pointer == nullptr) pointer = take_cached(block);
  if (pointer == nullptr) pointer = take_fresh(block, bytes, tag);
  if (open_pool_ != 0) pool_of_[pointer] = open_pool_;
  count(block, tag);
  if (source_.host_memory) {
    ASAN_UNPOISON_MEMORY_REGION(pointer, static_cast<size_t>(bytes));
    poison(static_cast<char*>(pointer) + bytes, block - bytes);
  }
  return pointer;
}

void CachingAllocator::deallocate(void* pointer, int64_t bytes, MemoryTag tag) {
  if (bytes == 0 || pointer == nullptr) return;
  const int64_t block = block_bytes(bytes);
  const std::lock_guard lock(mutex_);
  if (!pool_of_.empty() && give_to_pool(pointer, block, tag)) return;
  if (source_.host_memory) poison(pointer, block);
  cache_[block].push_back({pointer, ++frees_});
  stats_.live_bytes[index_of(tag)] -= block;
  stats_.total_live_bytes -= block;
  stats_.cached_bytes += block;
}

void CachingAllocator::poison([[maybe_unused]] void* pointer, [[maybe_unused]] int64_t bytes) const {
#if defined(LATHE_ASAN)
  if (source_.work_is_queued != nullptr && source_.work_is_queued()) return;
  ASAN_POISON_MEMORY_REGION(pointer, static_cast<size_t>(bytes));
#endif
}

void* CachingAllocator::take_pooled(int64_t block) {
  std::vector<void*>& free = pool_free_[open_pool_][block];
  if (free.empty()) return nullptr;
  void* const pointer = free.back();
  free.pop_back();
  pool_free_bytes_ -= block;
  stats_.live_bytes[index_of(MemoryTag::workspace)] -= block;
  stats_.total_live_bytes -= block;
  return pointer;
}

// Not poisoned: a captured graph uses it whenever it runs.
bool CachingAllocator::give_to_pool(void* pointer, int64_t block, MemoryTag tag) {
  const auto found = pool_of_.find(pointer);
  if (found == pool_of_.end()) return false;
  pool_free_[found->second][block].push_back(pointer);
  pool_free_bytes_ += block;
  move_live(block, tag, MemoryTag::workspace);
  return true;
}

void* CachingAllocator::take_cached(int64_t block) {
  const auto found = cache_.find(block);
  if (found == cache_.end() || found->second.empty()) return nullptr;
  void* const pointer = found->second.back().pointer;  // freed last: the likeliest to be in the CPU's caches
  found->second.pop_back();  // the class stays: a step frees and takes the same few again and again
  stats_.cached_bytes -= block;
  return pointer;
}

void* CachingAllocator::take_fresh(int64_t block, int64_t asked, MemoryTag tag) {
  const int64_t live = stats_.total_live_bytes + block;
  if (limit_ > 0 && live > limit_) refuse(asked, tag, std::max<int64_t>(limit_ - stats_.total_live_bytes, 0));
  const int64_t highest = std::max(highest_live_, live - pool_free_bytes_);
  int64_t allowed = highest + std::max(cache_slack_bytes, highest / 8);
  if (limit_ > 0) allowed = std::min(allowed, limit_);
  release_until(std::max<int64_t>(allowed - live, 0));
  const auto take = tag == MemoryTag::weights && source_.take_weights != nullptr ? source_.take_weights : source_.take;
  void* pointer = take(block);
  if (pointer == nullptr) {  // the system may have what the cache holds back
    release_until(0);
    pointer = take(block);
  }
  if (pointer == nullptr) refuse(asked, tag, source_.free_bytes());
  return pointer;
}

void CachingAllocator::release_until(int64_t cached_bytes) {
  if (stats_.cached_bytes <= cached_bytes) return;
  std::erase_if(cache_, [](const auto& entry) { return entry.second.empty(); });
  while (stats_.cached_bytes > cached_bytes) {
    const auto oldest =
        std::ranges::min_element(cache_, {}, [](const auto& entry) { return entry.second.front().freed_at; });
    const int64_t block = oldest->first;
    void* const pointer = oldest->second.front().pointer;
    oldest->second.erase(oldest->second.begin());
    if (oldest->second.empty()) cache_.erase(oldest);
    stats_.cached_bytes -= block;
    if (source_.host_memory) ASAN_UNPOISON_MEMORY_REGION(pointer, static_cast<size_t>(block));
    source_.give(pointer, block);
  }
}

void CachingAllocator::count(int64_t block, MemoryTag tag) {
  MemoryStats& s = stats_;
  ++s.allocation_count;
  int64_t& live = s.live_bytes[index_of(tag)];
  live += block;
  s.peak_bytes[index_of(tag)] = std::max(s.peak_bytes[index_of(tag)], live);
  s.total_live_bytes += block;
  if (s.total_live_bytes > s.total_peak_bytes) {
    s.total_peak_bytes = s.total_live_bytes;
    s.at_peak_bytes = s.live_bytes;
  }
  highest_live_ = std::max(highest_live_, s.total_live_bytes - pool_free_bytes_);
  s.reserved_peak_bytes = std::max(s.reserved_peak_bytes, s.total_live_bytes + s.cached_bytes);
}

void CachingAllocator::move_live(int64_t block, MemoryTag from, MemoryTag to) {
  stats_.live_bytes[index_of(from)] -= block;
  int64_t& live = stats_.live_bytes[index_of(to)];
  live += block;
  stats_.peak_bytes[index_of(to)] = std::max(stats_.peak_bytes[index_of(to)], live);
}

void CachingAllocator::refuse(int64_t asked, MemoryTag tag, int64_t free_bytes) const {
  std::string message = "out of memory on " + source_.device + ": " + std::to_string(asked) + " bytes asked for " +
                        std::string(name_of(tag)) + ", " + std::to_string(free_bytes) + " bytes free";
  if (limit_ > 0) message += " under the limit of " + std::to_string(limit_) + " bytes";
  // The largest holder, which may be what was asked for.
  auto held = stats_.live_bytes;
  held[index_of(tag)] += asked;
  const auto largest = static_cast<MemoryTag>(std::ranges::max_element(held) - held.begin());
  throw ResourceError(message + "; held now:\n" + memory_table(stats_, source_.device) + "Most of it is " +
                      std::string(name_of(largest)) + ": " + std::string(how_to_lower(largest)) + ".");
}

MemoryStats CachingAllocator::stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

void CachingAllocator::reset_peak() {
  const std::lock_guard lock(mutex_);
  stats_.peak_bytes = stats_.live_bytes;
  stats_.at_peak_bytes = stats_.live_bytes;
  stats_.total_peak_bytes = stats_.total_live_bytes;
  stats_.reserved_peak_bytes = stats_.total_live_bytes + stats_.cached_bytes;
}

void CachingAllocator::release_cached() {
  const std::lock_guard lock(mutex_);
  release_until(0);
}

void CachingAllocator::set_limit(int64_t bytes) {
  const std::lock_guard lock(mutex_);
  limit_ = std::max<int64_t>(bytes, 0);
  if (limit_ > 0) release_until(std::max<int64_t>(limit_ - stats_.total_live_bytes, 0));
}

int64_t CachingAllocator::make_pool() {
  const std::lock_guard lock(mutex_);
  return ++pools_made_;
}

int64_t CachingAllocator::open_pool(int64_t pool) {
  const std::lock_guard lock(mutex_);
  return std::exchange(open_pool_, pool);
}

void CachingAllocator::drop_pool(int64_t pool) {
  const std::lock_guard lock(mutex_);
  for (const auto& [block, pointers] : pool_free_[pool]) {
    for (void* const pointer : pointers) {
      if (source_.host_memory) poison(pointer, block);
      cache_[block].push_back({pointer, ++frees_});
      pool_free_bytes_ -= block;
      stats_.live_bytes[index_of(MemoryTag::workspace)] -= block;
      stats_.total_live_bytes -= block;
      stats_.cached_bytes += block;
    }
  }
  pool_free_.erase(pool);
  std::erase_if(pool_of_, [pool](const auto& entry) { return entry.second == pool; });
}

}  // namespace lathe
