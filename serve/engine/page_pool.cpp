#include "serve/engine/page_pool.h"

#include <algorithm>
#include <functional>

namespace lathe::engine {

PagePool::PagePool(int64_t pages) {
  for (int64_t page = 0; page < pages; ++page) free_.push_back(static_cast<int32_t>(page));
}

int32_t PagePool::take() {
  std::pop_heap(free_.begin(), free_.end(), std::greater<>());
  const int32_t page = free_.back();
  free_.pop_back();
  return page;
}

void PagePool::give_back(const std::vector<int32_t>& pages) {
  for (const int32_t page : pages) {
    free_.push_back(page);
    std::push_heap(free_.begin(), free_.end(), std::greater<>());
  }
}

}  // namespace lathe::engine
