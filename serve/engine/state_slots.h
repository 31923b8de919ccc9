// Who owns which state of the KV cache, for a model whose layers keep one of each sequence: those that run, and pages
// that others can find, whose state is that after the page's last token: a sequence that begins so goes on from there.
#pragma once

#include <cstdint>
#include <list>
#include <unordered_map>
#include <vector>

namespace lathe::engine {

inline constexpr int32_t no_state = -1;

class StateSlots {
 public:
  explicit StateSlots(int64_t count);

  // For a sequence: a free state, else that of the page whose state was last used the longest ago, which is forgotten.
  // no_state where sequences have all.
  int32_t take();
  void release(int32_t state);

  // A state to copy a sequence's to, known as the page's from now on. no_state where the page has one already, or
  // sequences have all.
  int32_t remember(int32_t page);
  bool contains(int32_t page) const { return by_page_.contains(page); }
  // The page's, which is used by that. Call only where there is one.
  int32_t use(int32_t page);
  void forget(int32_t page);  // nothing where it has none
  void forget_pages();

 private:
  struct Known {
    int32_t page, state;
  };

  std::vector<int32_t> free_;
  std::list<Known> known_;  // the one that was used the longest ago in front
  std::unordered_map<int32_t, std::list<Known>::iterator> by_page_;
};

}  // namespace lathe::engine
