// One answer on its way from tokens to text.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/tokenizer/tokenizer.h"
#include "serve/engine/request.h"
#include "serve/http/generation_settings.h"
#include "serve/http/stop_text.h"

namespace lathe::http {

// A token as the vocabulary has it, for log-probabilities: its text (U+FFFD where it is no whole character) and bytes.
struct TokenName {
  std::string text;
  std::string bytes;
};
TokenName name_of(const data::Tokenizer& tokenizer, int32_t token);

struct AnsweredToken {
  int32_t id = 0;
  float logprob = 0;
  std::vector<engine::TokenLogprob> alternatives;  // likeliest first
  std::string text;                                // its share of the answer's text
};

enum class AnswerEnd { stop_token, stop_string, length, cancelled };

// What became certain with one more token.
struct Piece {
  std::string text;
  std::vector<AnsweredToken> tokens;  // of that text
  std::optional<AnswerEnd> end;       // on the last piece
};

class Choice {
 public:
  Choice(std::shared_ptr<const data::Tokenizer> tokenizer, const GenerationSettings& settings);

  // Nothing is pushed after the last piece. The pieces' texts, joined, do not depend on how tokens came.
  Piece push(const engine::TokenOutput& output);

  int64_t completion_tokens() const { return completion_tokens_; }
  bool ended() const { return ended_; }

 private:
  std::string text_of(int32_t token);
  void release(Piece& piece);

  std::shared_ptr<const data::Tokenizer> tokenizer_;
  data::StreamDecoder decoder_;
  StopText stop_;
  int64_t min_tokens_;
  bool prompt_alone_;  // what is generated is not asked for
  std::vector<int32_t> shown_tokens_;
  std::vector<AnsweredToken> waiting_;  // tokens whose text is held back
  std::vector<size_t> ends_;            // of their texts, in bytes from the answer's start
  size_t decoded_ = 0, shown_ = 0;      // bytes
  int64_t completion_tokens_ = 0;
  bool ended_ = false;
};

}  // namespace lathe::http
