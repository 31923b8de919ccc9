// Text Generation Inference's /generate and /generate_stream. Unlike there, a stop string is no part of the text.
#include "serve/http/answer_format.h"

namespace lathe::http {
namespace {

using nlohmann::ordered_json;

const char* tgi_finish_reason(AnswerEnd end) {
  return end == AnswerEnd::stop_token ? "eos_token" : end == AnswerEnd::stop_string ? "stop_sequence" : "length";
}

class TgiFormat final : public AnswerFormat {
 public:
  TgiFormat(AnswerHead head, const GenerationSettings& settings, TgiOptions options)
      : head_(std::move(head)), options_(std::move(options)), top_(settings.top_logprobs.value_or(0) > 0) {}

  ErrorShape error_shape() const override { return ErrorShape::tgi; }

  std::string whole(const std::vector<WholeAnswer>& answers, const Usage&) override {
    const WholeAnswer& answer = answers[0];
    ordered_json body{{"generated_text", full_text(answer.text)}};
    if (options_.details) {
      ordered_json details = ended(answer.end, answer.completion_tokens);
      details["prefill"] = ordered_json::array();
      details["tokens"] = ordered_json::array();
      for (const AnsweredToken& token : answer.tokens) details["tokens"].push_back(token_json(token));
      if (top_) {
        details["top_tokens"] = ordered_json::array();
        for (const AnsweredToken& token : answer.tokens) details["top_tokens"].push_back(top_json(token));
      }
      body["details"] = std::move(details);
    }
    if (options_.list) body = ordered_json::array({body});
    return body.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
  }

  std::string first(size_t) override { return {}; }

  // An event for each token; the last one, which tells the whole text, waits for the end.
  std::string piece(size_t, const Piece& piece) override {
    std::string events;
    text_ += piece.text;
    for (const AnsweredToken& token : piece.tokens) {
      if (held_) events += token_event(*held_, nullptr, nullptr);
      held_ = token;
      ++tokens_;
    }
    if (piece.end) {
      const AnsweredToken none;
      events += token_event(held_ ? *held_ : none, full_text(text_), ended(*piece.end, tokens_));
    }
    return events;
  }

  std::string last(const Usage&) override { return {}; }

 private:
  std::string full_text(const std::string& text) const {
    return options_.return_full_text ? options_.prompt + text : text;
  }

  ordered_json ended(AnswerEnd end, int64_t tokens) const {
    ordered_json details{{"finish_reason", tgi_finish_reason(end)},
                         {"generated_tokens", tokens},
                         {"seed", nullptr},
                         {"input_length", options_.prompt_tokens}};
    if (options_.seed) details["seed"] = *options_.seed;
    return details;
  }

  ordered_json token_json(const AnsweredToken& token) const {
    return {{"id", token.id},
            {"text", token.text},
            {"logprob", finite_logprob(token.logprob)},
            {"special", head_.tokenizer->is_special(token.id)}};
  }

  ordered_json top_json(const AnsweredToken& token) const {
    ordered_json top = ordered_json::array();
    for (const engine::TokenLogprob& other : token.alternatives)
      top.push_back({{"id", other.token},
                     {"text", name_of(*head_.tokenizer, other.token).text},
                     {"logprob", finite_logprob(other.logprob)},
                     {"special", head_.tokenizer->is_special(other.token)}});
    return top;
  }

  std::string token_event(const AnsweredToken& token, ordered_json text, ordered_json details) {
    ordered_json data{{"index", ++index_}, {"token", token_json(token)}};
    if (top_) data["top_tokens"] = top_json(token);
    data["generated_text"] = std::move(text);
    data["details"] = std::move(details);
    return event(data);
  }

  AnswerHead head_;
  TgiOptions options_;
  bool top_;
  std::string text_;
  std::optional<AnsweredToken> held_;
  int64_t tokens_ = 0, index_ = 0;
};

}  // namespace

std::unique_ptr<AnswerFormat> tgi_format(AnswerHead head, const GenerationSettings& settings, TgiOptions options) {
  return std::make_unique<TgiFormat>(std::move(head), settings, std::move(options));
}

}  // namespace lathe::http
