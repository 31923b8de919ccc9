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
  CompletionFormat(AnswerHead head, const GenerationSettings& settings, std::vector<Echo> echoes)
      : head_(std::move(head)),
        logprobs_(settings.top_logprobs),
        prompt_logprobs_(settings.prompt_logprobs),
        include_usage_(settings.include_usage),
        echoes_(std::move(echoes)),
        prompts_(echoes_.size()),
        scores_(echoes_.size()) {
    for (const Echo& echo : echoes_) offsets_.push_back(characters_in(echo.text));
  }

  std::string whole(const std::vector<WholeAnswer>& answers, const Usage& usage) override {
    ordered_json body = described();
    body["choices"] = ordered_json::array();
    for (size_t i = 0; i < answers.size(); ++i) {
      ordered_json logprobs = logprobs_of(i, answers[i].tokens);
      if (!scores_[i].is_null())
        for (auto& [key, list] : logprobs.items())
          list.insert(list.begin(), scores_[i][key].begin(), scores_[i][key].end());
      body["choices"].push_back(
          choice_json(i, echoes_[i].text + answers[i].text, std::move(logprobs), finish_reason(answers[i].end)));
      if (prompt_logprobs_) body["choices"].back()["prompt_logprobs"] = std::move(prompts_[i]);
    }
    body["usage"] = usage_json(usage);
    return body.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
  }

  std::string first(size_t choice) override {
    const Echo& echo = echoes_[choice];  // with tokens, it waits for their log-probabilities
    return echo.text.empty() || !echo.tokens.empty() ? std::string() : chunk(choice, echo.text, nullptr, nullptr);
  }

  std::string prompt(size_t choice, const std::vector<engine::PromptLogprob>& logprobs) override {
    if (prompt_logprobs_) prompts_[choice] = prompt_logprobs_json(*head_.tokenizer, logprobs, *prompt_logprobs_);
    if (echoes_[choice].tokens.empty()) return {};
    scores_[choice] = scores_of(echoes_[choice].tokens, logprobs);
    return chunk(choice, echoes_[choice].text, scores_[choice], nullptr);
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
    ordered_json lists = no_tokens();
    for (const AnsweredToken& token : tokens) {
      add(lists, token.id, finite_logprob(token.logprob), top_of(token.alternatives), offsets_[choice]);
      offsets_[choice] += characters_in(token.text);
    }
    return lists;
  }

  // Of a prompt's tokens; nothing says how likely the first one was.
  ordered_json scores_of(const std::vector<int32_t>& tokens, const std::vector<engine::PromptLogprob>& logprobs) const {
    ordered_json lists = no_tokens();
    data::StreamDecoder decoder(head_.tokenizer);
    size_t offset = 0;
    for (size_t i = 0; i < tokens.size(); ++i) {
      if (i == 0) {
        add(lists, tokens[i], nullptr, nullptr, offset);
      } else {
        add(lists, tokens[i], finite_logprob(logprobs[i - 1].logprob), top_of(logprobs[i - 1].top_logprobs), offset);
      }
      offset += characters_in(decoder.push(tokens[i]));
    }
    return lists;
  }

  static ordered_json no_tokens() {
    const ordered_json none = ordered_json::array();
    return {{"tokens", none}, {"token_logprobs", none}, {"top_logprobs", none}, {"text_offset", none}};
  }
  void add(ordered_json& lists, int32_t token, ordered_json logprob, ordered_json top, size_t offset) const {
    lists["tokens"].push_back(written(token));
    lists["token_logprobs"].push_back(std::move(logprob));
    lists["top_logprobs"].push_back(std::move(top));
    lists["text_offset"].push_back(offset);
  }
  ordered_json top_of(const std::vector<engine::TokenLogprob>& likeliest) const {
    ordered_json top = ordered_json::object();
    for (size_t i = 0; i < likeliest.size() && static_cast<int64_t>(i) < *logprobs_; ++i)
      top[written(likeliest[i].token)] = finite_logprob(likeliest[i].logprob);
    return top;
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
  std::optional<int64_t> logprobs_, prompt_logprobs_;
  bool include_usage_;
  std::vector<Echo> echoes_;
  std::vector<ordered_json> prompts_, scores_;  // of each choice's prompt: vLLM's list, and OpenAI's lists
  std::vector<size_t> offsets_;                 // of each choice's next token, in characters
};

}  // namespace

std::unique_ptr<AnswerFormat> completion_format(AnswerHead head, const GenerationSettings& settings,
                                                std::vector<Echo> echoes) {
  return std::make_unique<CompletionFormat>(std::move(head), settings, std::move(echoes));
}

}  // namespace lathe::http
