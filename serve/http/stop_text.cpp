#include "serve/http/stop_text.h"

#include <algorithm>
#include <utility>

namespace lathe::http {

StopText::StopText(const std::vector<std::string>& stops) {
  for (const std::string& stop : stops) {
    Pattern pattern{stop, {}, 0};
    for (size_t i = 0; i < stop.size(); ++i) {
      size_t border = i == 0 ? 0 : pattern.border[i - 1];
      while (i > 0 && border > 0 && stop[border] != stop[i]) border = pattern.border[border - 1];
      pattern.border.push_back(i > 0 && stop[border] == stop[i] ? border + 1 : 0);
    }
    patterns_.push_back(std::move(pattern));
  }
}

void StopText::advance(Pattern& pattern, char next) {
  while (pattern.matched > 0 && pattern.text[pattern.matched] != next)
    pattern.matched = pattern.border[pattern.matched - 1];
  if (pattern.text[pattern.matched] == next) ++pattern.matched;
}

std::string StopText::push(std::string_view text) {
  if (stopped_) return {};
  for (const char next : text) {
    held_ += next;
    size_t completed = 0;
    for (Pattern& pattern : patterns_) {
      advance(pattern, next);
      if (pattern.matched == pattern.text.size()) completed = std::max(completed, pattern.matched);
    }
    if (completed == 0) continue;
    stopped_ = true;
    held_.resize(held_.size() - completed);
    return finish();
  }
  size_t begun = 0;
  for (const Pattern& pattern : patterns_) begun = std::max(begun, pattern.matched);
  std::string shown = held_.substr(0, held_.size() - begun);
  held_.erase(0, shown.size());
  return shown;
}

std::string StopText::finish() { return std::exchange(held_, {}); }

}  // namespace lathe::http
