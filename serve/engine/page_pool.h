// Which pages of the KV cache are free.
#pragma once

#include <cstdint>
#include <vector>

namespace lathe::engine {

class PagePool {
 public:
  explicit PagePool(int64_t pages);
  int64_t free_count() const { return static_cast<int64_t>(free_.size()); }
  // The lowest free page, so that a run's page numbers do not depend on what ran before. Call only when one is free.
  int32_t take();
  void give_back(const std::vector<int32_t>& pages);

 private:
  std::vector<int32_t> free_;  // a min-heap
};

}  // namespace lathe::engine
