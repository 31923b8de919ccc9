#include "serve/http/responses/responses_format.h"

#include <ctime>

#include "serve/http/responses/output_items.h"

namespace lathe::http {
namespace {

using nlohmann::ordered_json;

class ResponsesFormat final : public AnswerFormat {
 public:
  ResponsesFormat(AnswerHead head, const GenerationSettings& settings, const AnswerReading& reading, ordered_json asked)
      : head_(std::move(head)),
        asked_(std::move(asked)),
        logprobs_(settings.top_logprobs.has_value()),
        items_(head_.tokenizer, logprobs_, events_) {
    if (reading.tells_parts()) parser_.emplace(reading);
  }

  std::string whole(const std::vector<WholeAnswer>& answers, const Usage& usage) override {
    const WholeAnswer& answer = answers.front();
    end_ = answer.end;
    if (parser_) {
      read_whole(*parser_, answer, [&](const AnswerParts& parts, auto tokens) { take(parts, tokens); });
    } else {
      items_.add_text(answer.text, answer.tokens);
    }
    close();
    return response(&usage).dump(-1, ' ', false, ordered_json::error_handler_t::replace);
  }

  std::string first(size_t) override {
    events_.add("response.created", {{"response", response(nullptr)}});
    events_.add("response.in_progress", {{"response", response(nullptr)}});
    return events_.take();
  }

  std::string piece(size_t, const Piece& piece) override {
    take(piece);
    return events_.take();
  }

  std::string last(const Usage& usage) override {
    events_.add(cut() ? "response.incomplete" : "response.completed", {{"response", response(&usage)}});
    return events_.take();
  }

  std::string error(const ApiError& error) override {
    const std::string code = error.status() >= 500 ? "server_error" : "invalid_prompt";
    events_.add("error", {{"code", code}, {"message", error.what()}, {"param", nullptr}});
    items_.close("incomplete");
    ordered_json failed = response(nullptr);
    failed["status"] = "failed";
    failed["error"] = {{"code", code}, {"message", error.what()}};
    events_.add("response.failed", {{"response", std::move(failed)}});
    return events_.take();
  }

 private:
  bool cut() const { return end_ == AnswerEnd::length || end_ == AnswerEnd::cancelled; }

  void take(const Piece& piece) {
    end_ = piece.end;
    if (parser_) {
      take(parser_->push(piece.text, piece.tokens.size()), piece.tokens);
      if (piece.end) take(parser_->finish(), {});
    } else if (!piece.text.empty() || (logprobs_ && !piece.tokens.empty())) {
      items_.add_text(piece.text, piece.tokens);
    }
    if (piece.end) close();
  }

  void take(const AnswerParts& parts, std::span<const AnsweredToken> tokens) {
    if (!parts.reasoning.empty()) items_.add_reasoning(parts.reasoning);
    if (!parts.content.empty()) items_.add_text(parts.content, tokens);
    for (const ToolCallDelta& call : parts.calls) items_.add_call(call);
  }

  void close() {
    if (items_.items().empty()) items_.add_text("", {});  // an answer of no text is an answer
    items_.close(cut() ? "incomplete" : "completed");
  }

  // Without usage: as long as it grows.
  ordered_json response(const Usage* usage) const {
    const char* status = !end_ ? "in_progress" : cut() ? "incomplete" : "completed";
    ordered_json body{
        {"id", head_.id},       {"object", "response"}, {"created_at", head_.created},  {"status", status},
        {"model", head_.model}, {"error", nullptr},     {"incomplete_details", nullptr}};
    if (end_) body["completed_at"] = static_cast<int64_t>(std::time(nullptr));
    if (end_ == AnswerEnd::length) body["incomplete_details"] = {{"reason", "max_output_tokens"}};
    body["output"] = items_.items();
    body.update(asked_);
    body["usage"] = nullptr;
    if (usage != nullptr)
      body["usage"] = {{"input_tokens", usage->prompt_tokens},
                       {"input_tokens_details", {{"cached_tokens", usage->cached_tokens}}},
                       {"output_tokens", usage->completion_tokens},
                       {"output_tokens_details", {{"reasoning_tokens", parser_ ? parser_->reasoning_tokens() : 0}}},
                       {"total_tokens", usage->prompt_tokens + usage->completion_tokens}};
    return body;
  }

  AnswerHead head_;
  ordered_json asked_;
  bool logprobs_;
  ResponseEvents events_;
  OutputItems items_;
  std::optional<AnswerParser> parser_;
  std::optional<AnswerEnd> end_;
};

}  // namespace

std::unique_ptr<AnswerFormat> responses_format(AnswerHead head, const GenerationSettings& settings,
                                               const AnswerReading& reading, ordered_json asked) {
  return std::make_unique<ResponsesFormat>(std::move(head), settings, reading, std::move(asked));
}

}  // namespace lathe::http
