// Unpacked blocks of packed shards, the last that were read: what one folder's files share, so that memory does not
// grow with their number.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace lathe::data {

class BlockCache {
 public:
  using Block = std::vector<std::byte>;
  using Key = std::pair<const void*, uint64_t>;  // the file, and the block in it

  explicit BlockCache(size_t blocks = 256) : most_(blocks) {}
  // The block, from `unpack` where it is not held. Any number of threads; what unpack throws passes through.
  std::shared_ptr<const Block> get(const Key& key, const std::function<Block()>& unpack);

 private:
  size_t most_;
  std::mutex mutex_;
  std::list<std::pair<Key, std::shared_ptr<const Block>>> newest_first_;
  std::map<Key, decltype(newest_first_)::iterator> places_;
};

}  // namespace lathe::data
