// Speculation by prompt lookup (Saxena 2023): a text that repeats itself goes on as it did the last time. What is
// guessed runs beside the token that is due, in one step; guesses that turn out to be what is drawn anyway are kept.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace lathe::engine {

// The tokens that followed the latest earlier place of the last `longest`, else fewer, at least `shortest` tokens: at
// most `most` of them, none where there is no such place.
std::vector<int32_t> look_up(std::span<const int32_t> tokens, int64_t most, int64_t longest = 3, int64_t shortest = 2);

// Whether guessing pays for a sequence: it stops for a while when few of its guesses were right, each time for longer.
class GuessingRecord {
 public:
  bool pays(int64_t length) const { return length >= pause_until_; }
  // `right` of `guessed` tokens at the time when the sequence had `length`.
  void add(int64_t guessed, int64_t right, int64_t length);

 private:
  int64_t guessed_ = 0, right_ = 0;  // since the last judgement
  int64_t pause_ = 16, pause_until_ = 0;
};

}  // namespace lathe::engine
