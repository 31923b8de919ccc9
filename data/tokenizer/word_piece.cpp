#include "data/tokenizer/word_piece.h"

#include <span>

#include "data/tokenizer/utf8.h"
#include "data/tokenizer/vocabulary.h"
#include "data/tokenizer/word_cache.h"

namespace lathe::data {

WordPiece::WordPiece(WordPieceSettings settings) : settings_(std::move(settings)), identity_(WordCache::new_owner()) {}

void WordPiece::encode(std::string_view word, const Vocabulary& vocabulary, std::vector<WordToken>& tokens) const {
  if (word.empty()) return;
  WordCache& cache = WordCache::of_this_thread();
  if (cache.append(identity_, word, 0, tokens)) return;
  const size_t first = tokens.size();
  const auto unknown = [&] {
    tokens.resize(first);
    tokens.push_back({settings_.unknown_id, 0, static_cast<uint32_t>(word.size())});
  };
  std::vector<size_t> starts;  // of the characters, and the end
  for (size_t at = 0; at < word.size(); at += code_point_length(word[at])) {
    starts.push_back(at);
    if (starts.size() > settings_.max_characters) return unknown();
  }
  starts.push_back(word.size());
  std::string spelled;
  for (size_t begin = 0; begin + 1 < starts.size();) {
    size_t end = starts.size() - 1;
    std::optional<int32_t> id;
    for (; end > begin; --end) {
      spelled = begin > 0 ? settings_.continuing_prefix : "";
      spelled += word.substr(starts[begin], starts[end] - starts[begin]);
      if ((id = vocabulary.find(spelled))) break;
    }
    if (!id) return unknown();
    tokens.push_back({*id, static_cast<uint32_t>(starts[begin]), static_cast<uint32_t>(starts[end])});
    begin = end;
  }
  cache.put(identity_, word, 0, std::span(tokens).subspan(first));
}

}  // namespace lathe::data
