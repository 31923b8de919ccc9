#include "serve/engine/page_pool.h"

#include <algorithm>
#include <functional>

namespace lathe::engine {

PagePool::PagePool(int64_t pages) : owners_(static_cast<size_t>(pages)), place_(owners_.size(), cached_.end()) {
  for (int64_t page = 0; page < pages; ++page) free_.push_back(static_cast<int32_t>(page));
}

int32_t PagePool::take() {
  int32_t page;
  if (free_.empty()) {
    page = cached_.front();
    uncache(page);
  } else {
    std::pop_heap(free_.begin(), free_.end(), std::greater<>());
    page = free_.back();
    free_.pop_back();
  }
  owners_[static_cast<size_t>(page)] = 1;
  return page;
}

void PagePool::hold(int32_t page) {
  uncache(page);
  ++owners_[static_cast<size_t>(page)];
}

void PagePool::release(int32_t page, Afterwards afterwards) {
  if (--owners_[static_cast<size_t>(page)] > 0) return;
  if (afterwards == Afterwards::cached) {
    place_[static_cast<size_t>(page)] = cached_.insert(cached_.end(), page);
  } else {
    add_free(page);
  }
}

void PagePool::forget(int32_t page) {
  if (place_[static_cast<size_t>(page)] == cached_.end()) return;
  uncache(page);
  add_free(page);
}

void PagePool::add_free(int32_t page) {
  free_.push_back(page);
  std::push_heap(free_.begin(), free_.end(), std::greater<>());
}

void PagePool::uncache(int32_t page) {
  auto& place = place_[static_cast<size_t>(page)];
  if (place == cached_.end()) return;
  cached_.erase(place);
  place = cached_.end();
}

}  // namespace lathe::engine
