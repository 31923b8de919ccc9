// /v1/completions: text_completion.
#include "serve/http/answer_format.h"

namespace lathe::http {
namespace {

using nlohmann::ordered_json;

size_t characters_in(std::string_view text) {
  size_t count = 0;
  for (const char byte : text) count += (static_cast<unsigned char>(byte) & 0xC0) != 0x80;
  return count;
}

class CompletionFormat final : public AnswerFormat {
 public:
  CompletionFormat(AnswerHead head, const GenerationSettings& settings, std::vector<std::string> echoes)
      : head_(std::move(head)),
        logprobs_(settings.top_logprobs.has_value()),
        include_usage_(settings.include_usage),
        echoes_(std::move(echoes)) {
    for (const std::string& echo : echoes_) offsets_.push_back(characters_in(echo));
  }

  std::string whole(const std::vector<WholeAnswer>& answers, const Usage& usage) override {
    ordered_json body = described();
    body["choices"] = ordered_json::array();
    for (size_t i = 0; i < answers.size(); ++i)
      body["choices"].push_back(choice_json(i, echoes_[i] + answers[i].text, logprobs_of(i, answers[i].tokens),
                                            finish_reason(answers[i].end)));
    body["usage"] = usage_json(usage);
    return body.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
  }

  std::string first(size_t choice) override {
    return echoes_[choice].empty() ? std::string() : chunk(choice, echoes_[choice], nullptr, nullptr);
  }

  std::string piece(size_t choice, const Piece& piece) override {
    std::string events;
    if (!piece.text.empty() || (logprobs_ && !piece.tokens.empty()))
      events = chunk(choice, piece.text, logprobs_of(choice, piece.tokens), nullptr);
    if (piece.end) events += chunk(choice, "", nullptr, finish_reason(*piece.end));
    return events;
  }

  std::string last(const Usage& usage) override {
    if (!include_usage_) return last_event;
    ordered_json data = described();
    data["choices"] = ordered_json::array();
    data["usage"] = usage_json(usage);
    return event(data) + last_event;
  }

 private:
  ordered_json described() const {
    return {{"id", head_.id}, {"object", "text_completion"}, {"created", head_.created}, {"model", head_.model}};
  }

  static ordered_json choice_json(size_t choice, std::string text, ordered_json logprobs, ordered_json finish) {
    return {{"index", choice},
            {"text", std::move(text)},
            {"logprobs", std::move(logprobs)},
            {"finish_reason", std::move(finish)}};
  }

  std::string chunk(size_t choice, std::string text, ordered_json logprobs, ordered_json finish) const {
    ordered_json data = described();
    data["choices"] =
        ordered_json::array({choice_json(choice, std::move(text), std::move(logprobs), std::move(finish))});
    if (include_usage_) data["usage"] = nullptr;
    return event(data);
  }

  ordered_json logprobs_of(size_t choice, const std::vector<AnsweredToken>& tokens) {
    if (!logprobs_) return nullptr;
    ordered_json names = ordered_json::array(), values = ordered_json::array(), tops = ordered_json::array(),
                 offsets = ordered_json::array();
    for (const AnsweredToken& token : tokens) {
      names.push_back(written(token.id));
      values.push_back(finite_logprob(token.logprob));
      ordered_json top = ordered_json::object();
      for (const engine::TokenLogprob& other : token.alternatives)
        top[written(other.token)] = finite_logprob(other.logprob);
      tops.push_back(std::move(top));
      offsets.push_back(offsets_[choice]);
      offsets_[choice] += characters_in(token.text);
    }
    return {{"tokens", std::move(names)},
            {"token_logprobs", std::move(values)},
            {"top_logprobs", std::move(tops)},
            {"text_offset", std::move(offsets)}};
  }

  // Bytes that are no whole character are written out, as OpenAI does: two such tokens have two names.
  std::string written(int32_t token) const {
    const TokenName name = name_of(*head_.tokenizer, token);
    if (name.bytes == name.text) return name.text;
    constexpr const char* digits = "0123456789abcdef";
    std::string text = "bytes:";
    for (const char byte : name.bytes) {
      const auto value = static_cast<unsigned char>(byte);
      text += {'\\', 'x', digits[value >> 4], digits[value & 15]};
    }
    return text;
  }

  AnswerHead head_;
  bool logprobs_, include_usage_;
  std::vector<std::string> echoes_;
  std::vector<size_t> offsets_;  // of each choice's next token, in characters
};

}  // namespace

std::unique_ptr<AnswerFormat> completion_format(AnswerHead head, const GenerationSettings& settings,
                                                std::vector<std::string> echoes) {
  return std::make_unique<CompletionFormat>(std::move(head), settings, std::move(echoes));
}

}  // namespace lathe::http
