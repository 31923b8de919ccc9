#include "serve/engine/state_slots.h"

namespace lathe::engine {

StateSlots::StateSlots(int64_t count) {
  for (int64_t state = count - 1; state >= 0; --state) free_.push_back(static_cast<int32_t>(state));
}

int32_t StateSlots::take() {
  if (free_.empty() && !known_.empty()) forget(known_.front().page);
  if (free_.empty()) return no_state;
  const int32_t state = free_.back();
  free_.pop_back();
  return state;
}

void StateSlots::release(int32_t state) { free_.push_back(state); }

int32_t StateSlots::remember(int32_t page) {
  if (contains(page)) return no_state;
  const int32_t state = take();
  if (state != no_state) by_page_[page] = known_.insert(known_.end(), {page, state});
  return state;
}

int32_t StateSlots::use(int32_t page) {
  const auto known = by_page_.at(page);
  known_.splice(known_.end(), known_, known);
  return known->state;
}

void StateSlots::forget(int32_t page) {
  const auto found = by_page_.find(page);
  if (found == by_page_.end()) return;
  release(found->second->state);
  known_.erase(found->second);
  by_page_.erase(found);
}

void StateSlots::forget_pages() {
  while (!known_.empty()) forget(known_.front().page);
}

}  // namespace lathe::engine
