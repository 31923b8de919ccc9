// Memory of the system in huge pages (2 MiB), where the kernel has them.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>

namespace lathe {

inline constexpr int64_t page_bytes = 4 << 10, huge_page_bytes = 2 << 20;

// nullptr where there is no memory. Given back by munmap.
void* map_pages(int64_t bytes);
// The same, aligned to a huge page.
void* map_huge_pages(int64_t bytes);

// Blocks that share huge pages: for those that live as long as a model and of which each is too small for pages of its
// own. Weights are streamed for every token, and with pages of 4 KiB the CPU's prefetchers stop at each of their ends
// and 512 times as many translations are looked up: two threads read 96 MB that a third-level cache holds at 15 to 50
// GB/s, and in huge pages at 53 to 57. What is given back is the system's at once, in pages of 4 KiB. Thread-safe.
class HugePageBlocks {
 public:
  void* take(int64_t bytes);              // a multiple of 64; nullptr where there is no memory
  bool give(void* block, int64_t bytes);  // false where it is none of its blocks

 private:
  struct Slab {
    int64_t bytes, used, live_blocks;
  };
  using Slabs = std::map<char*, Slab>;  // by their beginnings
  Slabs::iterator slab_of(char* block);
  char* take_fresh(int64_t bytes);
  void unmap(Slabs::iterator slab);

  std::mutex mutex_;
  Slabs slabs_;
  char* filling_ = nullptr;              // the slab with most room
  std::multimap<int64_t, char*> given_;  // blocks of slabs that live on, by their size, which alone they serve again
};

}  // namespace lathe
