#include "data/tokenizer/word_piece.h"

#include "data/tokenizer/utf8.h"
#include "data/tokenizer/vocabulary.h"

namespace lathe::data {

void WordPiece::encode(std::string_view word, const Vocabulary& vocabulary, std::vector<WordToken>& tokens) const {
  if (word.empty()) return;
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
}

}  // namespace lathe::data
