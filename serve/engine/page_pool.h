// Who owns which pages of the KV cache. A page has any number of owners; one that has lost the last of them is free, or
// kept (cached) because it can still be found, until no other is free.
#pragma once

#include <cstdint>
#include <list>
#include <vector>

namespace lathe::engine {

class PagePool {
 public:
  explicit PagePool(int64_t pages);
  int64_t free_count() const { return static_cast<int64_t>(free_.size()); }
  int64_t cached_count() const { return static_cast<int64_t>(cached_.size()); }
  int64_t available() const { return free_count() + cached_count(); }

  // The lowest free page; where none is free the cached one that was let go first, which is then to be forgotten. Its
  // caller owns it. Call only when one is available.
  int32_t take();
  // One more owner, of a page that has some or is cached.
  void hold(int32_t page);
  enum class Afterwards { free, cached };
  void release(int32_t page, Afterwards afterwards);
  // A page that can no longer be found: a cached one is free now.
  void forget(int32_t page);

 private:
  void add_free(int32_t page);
  void uncache(int32_t page);

  std::vector<int32_t> free_;                        // a min-heap
  std::list<int32_t> cached_;                        // the one that was let go first in front
  std::vector<int32_t> owners_;                      // of each page
  std::vector<std::list<int32_t>::iterator> place_;  // of each page in cached_, or its end
};

}  // namespace lathe::engine
