// Stop strings in a text that comes in pieces.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace lathe::http {

// What push() returns, joined, is the text up to the first stop string to be completed (of several that end at one
// byte, the longest), however the text was cut into pieces. A suffix that a stop string may begin with is held back.
// Linear in the text times the number of strings (Knuth, Morris and Pratt, "Fast pattern matching in strings", 1977).
class StopText {
 public:
  explicit StopText(const std::vector<std::string>& stops);  // none of them empty
  std::string push(std::string_view text);
  bool stopped() const { return stopped_; }
  // What was held back, when no more text comes.
  std::string finish();

 private:
  struct Pattern {
    std::string text;
    std::vector<size_t> border;  // of each prefix: the longest proper prefix that is its suffix
    size_t matched = 0;          // of the pattern, at the end of what was pushed
  };
  static void advance(Pattern& pattern, char next);

  std::vector<Pattern> patterns_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace lathe::http
