#include "serve/http/choice.h"

#include <algorithm>

#include "data/tokenizer/utf8.h"

namespace lathe::http {

TokenName name_of(const data::Tokenizer& tokenizer, int32_t token) {
  const std::string_view spelling = tokenizer.token(token);
  TokenName name{tokenizer.decode(std::span(&token, 1)), {}};
  const bool whole = name.text.find(data::replacement_character) == std::string::npos && !name.text.empty();
  if (whole || tokenizer.is_special(token)) {
    if (!whole) name.text = spelling;
    name.bytes = name.text;
  } else if (spelling.size() == 6 && spelling.starts_with("<0x")) {  // SentencePiece's bytes
    name.bytes = static_cast<char>(std::stoi(std::string(spelling.substr(3, 2)), nullptr, 16));
  } else if (const auto bytes = data::bytes_of_alphabet(spelling)) {
    name.bytes = *bytes;
  } else {
    name.bytes = name.text;
  }
  return name;
}

Choice::Choice(std::shared_ptr<const data::Tokenizer> tokenizer, const GenerationSettings& settings)
    : tokenizer_(std::move(tokenizer)),
      decoder_(tokenizer_, settings.skip_special_tokens),
      stop_(settings.stop),
      min_tokens_(settings.min_tokens),
      prompt_alone_(settings.max_tokens == 0),
      shown_tokens_(settings.skip_special_tokens ? settings.shown_tokens : std::vector<int32_t>()) {}

std::string Choice::text_of(int32_t token) {
  if (std::ranges::find(shown_tokens_, token) == shown_tokens_.end()) return decoder_.push(token);
  return decoder_.finish() + std::string(tokenizer_->token(token));
}

Piece Choice::push(const engine::TokenOutput& output) {
  Piece piece;
  if (prompt_alone_) {
    ended_ = true;
    piece.end = AnswerEnd::length;
    return piece;
  }
  ++completion_tokens_;
  const bool stop_token = output.finish_reason == engine::FinishReason::stop;
  std::string text = stop_token ? std::string() : text_of(output.token);
  if (output.finish_reason) text += decoder_.finish();
  decoded_ += text.size();
  if (!stop_token) {
    waiting_.push_back({output.token, output.logprob, output.top_logprobs, text});
    ends_.push_back(decoded_);
  }
  piece.text = completion_tokens_ > min_tokens_ ? stop_.push(text) : text;
  if (stop_.stopped()) {
    piece.end = AnswerEnd::stop_string;
  } else if (output.finish_reason) {
    piece.text += stop_.finish();
    piece.end = stop_token                                                ? AnswerEnd::stop_token
                : output.finish_reason == engine::FinishReason::cancelled ? AnswerEnd::cancelled
                                                                          : AnswerEnd::length;
  }
  shown_ += piece.text.size();
  ended_ = piece.end.has_value();
  release(piece);
  return piece;
}

// Tokens all of whose text is shown; on the last piece also the one that the stop string begins in, with what is shown
// of it.
void Choice::release(Piece& piece) {
  size_t count = 0;
  while (count < waiting_.size() && ends_[count] <= shown_) ++count;
  if (piece.end == AnswerEnd::stop_string && count < waiting_.size()) {
    AnsweredToken& token = waiting_[count];
    const size_t begin = ends_[count] - token.text.size();
    if (begin < shown_) {
      token.text.resize(shown_ - begin);
      ++count;
    }
  }
  const auto end = waiting_.begin() + static_cast<std::ptrdiff_t>(count);
  piece.tokens.assign(std::make_move_iterator(waiting_.begin()), std::make_move_iterator(end));
  waiting_.erase(waiting_.begin(), end);
  ends_.erase(ends_.begin(), ends_.begin() + static_cast<std::ptrdiff_t>(count));
}

}  // namespace lathe::http
