#include "data/shards/block_cache.h"

namespace lathe::data {

std::shared_ptr<const BlockCache::Block> BlockCache::get(const Key& key, const std::function<Block()>& unpack) {
  {
    const std::lock_guard lock(mutex_);
    if (const auto found = places_.find(key); found != places_.end()) {
      newest_first_.splice(newest_first_.begin(), newest_first_, found->second);
      return found->second->second;
    }
  }
  auto block = std::make_shared<const Block>(unpack());  // outside of the lock: others read meanwhile
  const std::lock_guard lock(mutex_);
  if (places_.contains(key)) return block;
  newest_first_.emplace_front(key, block);
  places_[key] = newest_first_.begin();
  if (newest_first_.size() > most_) {
    places_.erase(newest_first_.back().first);
    newest_first_.pop_back();
  }
  return block;
}

}  // namespace lathe::data
