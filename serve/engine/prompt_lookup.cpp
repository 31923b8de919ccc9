#include "serve/engine/prompt_lookup.h"

#include <algorithm>

namespace lathe::engine {
namespace {

constexpr int64_t judged_after = 16;  // guessed tokens
constexpr int64_t longest_pause = 512;

}  // namespace

std::vector<int32_t> look_up(std::span<const int32_t> tokens, int64_t most, int64_t longest, int64_t shortest) {
  for (int64_t size = longest; size >= shortest; --size) {
    const auto length = static_cast<int64_t>(tokens.size());
    if (length <= size || most < 1) continue;
    const auto last = tokens.last(static_cast<size_t>(size));
    const auto before = tokens.first(static_cast<size_t>(length - 1));
    const auto found = std::find_end(before.begin(), before.end(), last.begin(), last.end());
    if (found == before.end()) continue;
    const auto next = found - before.begin() + size;
    const auto count = std::min(most, length - next);
    const auto guesses = tokens.subspan(static_cast<size_t>(next), static_cast<size_t>(count));
    return {guesses.begin(), guesses.end()};
  }
  return {};
}

// A right guess saves a step; a wrong one costs a row of it, some third of a step for one sequence on a CPU.
void GuessingRecord::add(int64_t guessed, int64_t right, int64_t length) {
  guessed_ += guessed;
  right_ += right;
  if (guessed_ < judged_after) return;
  if (right_ * 3 < guessed_) {
    pause_until_ = length + pause_;
    pause_ = std::min(2 * pause_, longest_pause);
  } else {
    pause_ = 16;
  }
  guessed_ = right_ = 0;
}

}  // namespace lathe::engine
