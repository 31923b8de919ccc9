// /v1/chat/completions: chat.completion and chat.completion.chunk.
#include "serve/http/answer_format.h"

namespace lathe::http {
namespace {

using nlohmann::ordered_json;

class ChatFormat final : public AnswerFormat {
 public:
  ChatFormat(AnswerHead head, const GenerationSettings& settings, const AnswerReading& reading)
      : head_(std::move(head)), logprobs_(settings.top_logprobs), include_usage_(settings.include_usage) {
    tells_reasoning_ = reading.reasoning || reading.harmony;
    if (reading.tells_parts())
      for (int64_t i = 0; i < settings.n; ++i) parsers_.emplace_back(reading);
  }

  std::string whole(const std::vector<WholeAnswer>& answers, const Usage& usage) override {
    ordered_json choices = ordered_json::array();
    for (size_t i = 0; i < answers.size(); ++i) {
      const WholeAnswer& answer = answers[i];
      bool called = false;
      ordered_json message = message_of(i, answer, called);
      choices.push_back({{"index", i},
                         {"message", std::move(message)},
                         {"logprobs", logprobs_of(answer.tokens)},
                         {"finish_reason", end_of(answer.end, called)}});
    }
    ordered_json body = described("chat.completion");
    body["choices"] = std::move(choices);
    body["usage"] = usage_of(usage);
    if (!prompt_logprobs_.is_null()) body["prompt_logprobs"] = prompt_logprobs_;
    return body.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
  }

  std::string first(size_t choice) override {
    return chunk(choice, {{"role", "assistant"}, {"content", ""}}, nullptr, nullptr);
  }

  std::string prompt(size_t, const std::vector<engine::PromptLogprob>& logprobs) override {
    prompt_logprobs_ = prompt_logprobs_json(*head_.tokenizer, logprobs, most_alternatives);
    return {};
  }

  // The chunk with the finish reason has an empty delta.
  std::string piece(size_t choice, const Piece& piece) override {
    if (!parsers_.empty()) return piece_in_parts(choice, piece);
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
    data["usage"] = usage_of(usage);
    return event(data) + last_event;
  }

 private:
  ordered_json described(const char* object) const {
    return {{"id", head_.id}, {"object", object}, {"created", head_.created}, {"model", head_.model}};
  }

  static const char* end_of(AnswerEnd end, bool called) {
    const bool complete = end == AnswerEnd::stop_token || end == AnswerEnd::stop_string;
    return called && complete ? "tool_calls" : finish_reason(end);
  }

  // Thoughts under the name that DeepSeek's API and llama.cpp have for them.
  ordered_json message_of(size_t choice, const WholeAnswer& answer, bool& called) {
    ordered_json message{{"role", "assistant"}, {"content", answer.text}, {"refusal", nullptr}};
    if (parsers_.empty()) return message;
    AnswerParts parts;
    read_whole(parsers_[choice], answer, [&](const AnswerParts& more, auto) { append(parts, more); });
    called = parsers_[choice].called();
    message["content"] = parts.content;
    if (!parts.reasoning.empty()) message["reasoning_content"] = parts.reasoning;
    if (!called) return message;
    if (parts.content.empty()) message["content"] = nullptr;
    ordered_json& calls = message["tool_calls"] = ordered_json::array();
    for (const ToolCallDelta& call : parts.calls)
      calls.push_back(
          {{"id", call.id}, {"type", "function"}, {"function", {{"name", call.name}, {"arguments", call.arguments}}}});
    return message;
  }

  ordered_json usage_of(const Usage& usage) const {
    ordered_json json = usage_json(usage);
    if (!tells_reasoning_) return json;
    int64_t tokens = 0;
    for (const AnswerParser& parser : parsers_) tokens += parser.reasoning_tokens();
    json["completion_tokens_details"] = {{"reasoning_tokens", tokens}};
    return json;
  }

  // A call's first delta has its id and name.
  static ordered_json delta_of(const ToolCallDelta& call) {
    ordered_json delta{{"index", call.index}};
    ordered_json function = ordered_json::object();
    if (!call.id.empty()) {
      delta["id"] = call.id;
      delta["type"] = "function";
      function["name"] = call.name;
    }
    function["arguments"] = call.arguments;
    delta["function"] = std::move(function);
    return {{"tool_calls", ordered_json::array({std::move(delta)})}};
  }

  std::string piece_in_parts(size_t choice, const Piece& piece) {
    AnswerParser& parser = parsers_[choice];
    std::vector<ordered_json> deltas;
    const auto add = [&](const AnswerParts& some) {
      if (!some.reasoning.empty()) deltas.push_back({{"reasoning_content", some.reasoning}});
      if (!some.content.empty()) deltas.push_back({{"content", some.content}});
      for (const ToolCallDelta& call : some.calls) deltas.push_back(delta_of(call));
    };
    add(parser.push(piece.text, piece.tokens.size()));
    if (piece.end) add(parser.finish());
    if (deltas.empty() && logprobs_ && !piece.tokens.empty()) deltas.push_back({{"content", ""}});
    std::string events;
    for (size_t i = 0; i < deltas.size(); ++i)  // log-probabilities of what came with the piece, once
      events += chunk(choice, std::move(deltas[i]), i == 0 ? logprobs_of(piece.tokens) : ordered_json(), nullptr);
    if (piece.end) events += chunk(choice, ordered_json::object(), nullptr, end_of(*piece.end, parser.called()));
    return events;
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

  ordered_json logprobs_of(std::span<const AnsweredToken> tokens) const {
    if (!logprobs_) return nullptr;
    return {{"content", token_logprobs_json(*head_.tokenizer, tokens)}, {"refusal", nullptr}};
  }

  AnswerHead head_;
  std::optional<int64_t> logprobs_;
  bool include_usage_;
  ordered_json prompt_logprobs_;
  bool tells_reasoning_ = false;
  std::vector<AnswerParser> parsers_;  // of the choices; none where their text is all there is
};

}  // namespace

std::unique_ptr<AnswerFormat> chat_format(AnswerHead head, const GenerationSettings& settings,
                                          const AnswerReading& reading) {
  return std::make_unique<ChatFormat>(std::move(head), settings, reading);
}

}  // namespace lathe::http
