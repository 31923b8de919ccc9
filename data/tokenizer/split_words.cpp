#include "data/tokenizer/split_words.h"

#include <algorithm>
#include <optional>

#include "data/tokenizer/utf8.h"

namespace lathe::data {
namespace {

// Takes matches, some of which may be empty, and what lies between them, in order.
class Cutter {
 public:
  Cutter(const PreTokenizer& step, size_t base, std::vector<TextPiece>& words)
      : cut_(step.cut), invert_(step.invert), base_(base), first_(words.size()), words_(words) {}

  void add_match(size_t begin, size_t end) {
    if (begin > done_) add(done_, begin, invert_);
    add(begin, end, !invert_);
    done_ = end;
  }

  void finish(size_t size) {
    if (done_ < size) add(done_, size, invert_);
    if (!any_empty_) return;
    const auto is_empty = [](const TextPiece& word) { return word.begin == word.end; };
    words_.erase(std::remove_if(words_.begin() + static_cast<std::ptrdiff_t>(first_), words_.end(), is_empty),
                 words_.end());
  }

 private:
  void add(size_t begin, size_t end, bool match) {
    using Cut = PreTokenizer::Cut;
    const TextPiece piece{base_ + begin, base_ + end};
    any_empty_ |= begin == end;
    bool joins = false;  // the word before
    switch (cut_) {
      case Cut::removed:
        if (match) return;
        break;
      case Cut::isolated: break;
      case Cut::contiguous: joins = match == previous_match_; break;
      case Cut::merged_with_previous: joins = match && !previous_match_; break;
      case Cut::merged_with_next: joins = !match && previous_match_; break;
    }
    previous_match_ = match;
    if (joins && words_.size() > first_) {
      words_.back().end = piece.end;
    } else {
      words_.push_back(piece);
    }
  }

  PreTokenizer::Cut cut_;
  bool invert_;
  size_t base_, first_;
  std::vector<TextPiece>& words_;
  size_t done_ = 0;
  bool previous_match_ = false, any_empty_ = false;
};

}  // namespace

void split_word(const PreTokenizer& step, std::string_view text, TextPiece word, std::vector<TextPiece>& words) {
  // A word is matched on its own: look-behind does not see the text before it.
  const std::string_view own = text.substr(word.begin, word.end - word.begin);
  Cutter cutter(step, word.begin, words);
  if (step.pattern.empty()) {
    for (size_t at = 0; (at = own.find(step.literal, at)) != std::string_view::npos; at += step.literal.size())
      cutter.add_match(at, at + step.literal.size());
  } else {
    // A match of nothing is a cut, too, but where a match has just ended.
    std::optional<size_t> last_end;
    for (size_t from = 0, begin = 0, end = 0; from < own.size() && step.pattern[0].find(own, from, begin, end);) {
      const bool nothing = end == begin;
      if (!nothing || begin != last_end) cutter.add_match(begin, end);
      last_end = end;
      from = !nothing ? end : end < own.size() ? end + code_point_length(own[end]) : own.size();
    }
  }
  cutter.finish(own.size());
}

}  // namespace lathe::data
