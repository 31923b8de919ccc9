// One caching allocator for each device. Every allocation carries a tag, so that the peak is a table.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "core/device.h"

namespace lathe {

enum class MemoryTag : uint8_t { weights, adapters, gradients, optimizer, activations, kv_cache, workspace, other };
inline constexpr int memory_tag_count = 8;
std::string_view name_of(MemoryTag tag);
// What a user can do about a tag that takes too much: "lower the batch size, …".
std::string_view how_to_lower(MemoryTag tag);

// Sets the tag that Tensor::empty uses where none is given, for this thread, until the scope ends.
class MemoryTagScope {
 public:
  explicit MemoryTagScope(MemoryTag tag);
  ~MemoryTagScope();
  MemoryTagScope(const MemoryTagScope&) = delete;
  MemoryTagScope& operator=(const MemoryTagScope&) = delete;
  static MemoryTag current();

 private:
  MemoryTag previous_;
};

struct MemoryStats {
  std::array<int64_t, memory_tag_count> live_bytes{};
  std::array<int64_t, memory_tag_count> peak_bytes{};     // each tag's own peak
  std::array<int64_t, memory_tag_count> at_peak_bytes{};  // each tag's share at the moment of the total's peak
  int64_t total_live_bytes = 0;
  int64_t total_peak_bytes = 0;
  int64_t cached_bytes = 0;         // freed, kept for reuse
  int64_t reserved_peak_bytes = 0;  // peak of live + cached: what was taken from the system
  int64_t allocation_count = 0;     // calls of allocate() so far
};

// Thread-safe. Blocks are aligned to 64 bytes and sized in classes; freed blocks are reused for the same class.
// All figures count whole blocks (at most 1/4 above the bytes asked, 1/16 from 256 KiB on): what is really held.
// The cache stays small: before memory is taken from the system, blocks that were freed longest ago go back until
// live + cached fits the highest live total so far plus a small slack.
class Allocator {
 public:
  virtual ~Allocator() = default;
  // Throws ResourceError naming the bytes asked, the bytes free, the tags' table, and what to lower. Zero bytes are
  // fine: the pointer is aligned, not null, and takes no memory.
  virtual void* allocate(int64_t bytes, MemoryTag tag) = 0;
  virtual void deallocate(void* pointer, int64_t bytes, MemoryTag tag) = 0;
  virtual MemoryStats stats() const = 0;
  virtual void reset_peak() = 0;
  virtual void release_cached() = 0;
  // Total of live + cached bytes that may be held; 0 means no limit. Exceeding it is a ResourceError.
  virtual void set_limit(int64_t bytes) = 0;

  // What MemoryPool (memory_pool.h) is made of; pools count from 1.
  virtual int64_t make_pool() = 0;
  virtual int64_t open_pool(int64_t pool) = 0;  // 0: none; returns the one that was open
  virtual void drop_pool(int64_t pool) = 0;
};

// The process's allocator for the device. Throws ResourceError for a kind that no layer has registered.
Allocator& allocator_for(Device device);

// How a device layer (CUDA, simt) joins: called once, while the program starts, before any other thread runs.
// `fill_zero` clears bytes on the device, ordered before whatever the caller launches next.
struct DeviceMemory {
  Allocator& (*allocator)(int index) = nullptr;
  void (*fill_zero)(Device device, void* pointer, int64_t bytes) = nullptr;
};
void register_device_memory(DeviceKind kind, DeviceMemory memory);
void fill_zero(Device device, void* pointer, int64_t bytes);

// The table that ends every run: tag, live, peak, share at the total's peak; plus the process's peak RSS.
std::string memory_table(Device device);
int64_t process_peak_rss_bytes();

// Reference-counted bytes that tensors look into.
class Storage {
  // make_shared wants a public constructor, which nobody else can call.
  struct Key {
    explicit Key() = default;
  };

 public:
  explicit Storage(Key) {}
  static std::shared_ptr<Storage> allocate(int64_t bytes, Device device, MemoryTag tag);
  // Memory owned by somebody else (a mapped file); `keep_alive` is held as long as the storage lives.
  static std::shared_ptr<Storage> wrap(void* data, int64_t bytes, Device device,
                                       std::shared_ptr<const void> keep_alive);
  ~Storage();
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;

  void* data() const { return data_; }
  int64_t nbytes() const { return bytes_; }
  Device device() const { return device_; }
  bool owned() const { return owned_; }  // false for wrapped memory, which others may see
  // Raised whenever the contents change in place after creation; autograd checks it for saved tensors.
  uint64_t version() const { return version_; }
  void bump_version() { ++version_; }

 private:
  void* data_ = nullptr;
  int64_t bytes_ = 0;
  Device device_;
  MemoryTag tag_ = MemoryTag::other;
  bool owned_ = false;
  uint64_t version_ = 0;
  std::shared_ptr<const void> keep_alive_;
};

}  // namespace lathe
