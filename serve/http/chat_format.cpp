// /v1/chat/completions: chat.completion and chat.completion.chunk.
#include "serve/http/answer_format.h"

namespace lathe::http {
namespace {

using nlohmann::ordered_json;

class ChatFormat final : public AnswerFormat {
 public:
  ChatFormat(AnswerHead head, const GenerationSettings& settings)
      : head_(std::move(head)), logprobs_(settings.top_logprobs), include_usage_(settings.include_usage) {}

  std::string whole(const std::vector<WholeAnswer>& answers, const Usage& usage) override {
    ordered_json choices = ordered_json::array();
    for (size_t i = 0; i < answers.size(); ++i) {
      const WholeAnswer& answer = answers[i];
      choices.push_back({{"index", i},
                         {"message", {{"role", "assistant"}, {"content", answer.text}, {"refusal", nullptr}}},
                         {"logprobs", logprobs_of(answer.tokens)},
                         {"finish_reason", finish_reason(answer.end)}});
    }
    ordered_json body = described("chat.completion");
    body["choices"] = std::move(choices);
    body["usage"] = usage_json(usage);
    return body.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
  }

  std::string first(size_t choice) override {
    return chunk(choice, {{"role", "assistant"}, {"content", ""}}, nullptr, nullptr);
  }

  // The chunk with the finish reason has an empty delta.
  std::string piece(size_t choice, const Piece& piece) override {
    std::string events;
    if (!piece.text.empty() || (logprobs_ && !piece.tokens.empty()))
      events = chunk(choice, {{"content", piece.text}}, logprobs_of(piece.tokens), nullptr);
    if (piece.end) events += chunk(choice, ordered_json::object(), nullptr, finish_reason(*piece.end));
    return events;
  }

  std::string last(const Usage& usage) override {
    if (!include_usage_) return last_event;
    ordered_json data = described("chat.completion.chunk");
    data["choices"] = ordered_json::array();
    data["usage"] = usage_json(usage);
    return event(data) + last_event;
  }

 private:
  ordered_json described(const char* object) const {
    return {{"id", head_.id}, {"object", object}, {"created", head_.created}, {"model", head_.model}};
  }

  std::string chunk(size_t choice, ordered_json delta, ordered_json logprobs, ordered_json finish) const {
    ordered_json data = described("chat.completion.chunk");
    data["choices"] = ordered_json::array({ordered_json{{"index", choice},
                                                        {"delta", std::move(delta)},
                                                        {"logprobs", std::move(logprobs)},
                                                        {"finish_reason", std::move(finish)}}});
    if (include_usage_) data["usage"] = nullptr;
    return event(data);
  }

  ordered_json token_json(int32_t token, float logprob) const {
    const TokenName name = name_of(*head_.tokenizer, token);
    ordered_json bytes = ordered_json::array();
    for (const char byte : name.bytes) bytes.push_back(static_cast<unsigned char>(byte));
    return {{"token", name.text}, {"logprob", finite_logprob(logprob)}, {"bytes", std::move(bytes)}};
  }

  ordered_json logprobs_of(const std::vector<AnsweredToken>& tokens) const {
    if (!logprobs_) return nullptr;
    ordered_json content = ordered_json::array();
    for (const AnsweredToken& token : tokens) {
      ordered_json entry = token_json(token.id, token.logprob);
      entry["top_logprobs"] = ordered_json::array();
      for (const engine::TokenLogprob& other : token.alternatives)
        entry["top_logprobs"].push_back(token_json(other.token, other.logprob));
      content.push_back(std::move(entry));
    }
    return {{"content", std::move(content)}, {"refusal", nullptr}};
  }

  AnswerHead head_;
  std::optional<int64_t> logprobs_;
  bool include_usage_;
};

}  // namespace

std::unique_ptr<AnswerFormat> chat_format(AnswerHead head, const GenerationSettings& settings) {
  return std::make_unique<ChatFormat>(std::move(head), settings);
}

}  // namespace lathe::http
