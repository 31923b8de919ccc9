// How one kind of endpoint writes answers: whole, or as events of a stream.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/json_value.h"
#include "serve/http/answer_parser.h"
#include "serve/http/api_error.h"
#include "serve/http/choice.h"

namespace lathe::http {

struct Usage {
  int64_t prompt_tokens = 0, completion_tokens = 0;
  int64_t cached_tokens = 0;  // of the prompt: computed for an earlier request
};

struct WholeAnswer {
  std::string text;
  std::vector<AnsweredToken> tokens;
  AnswerEnd end = AnswerEnd::length;
  int64_t completion_tokens = 0;
};

// What every event and answer of a request says about it.
struct AnswerHead {
  std::string id;
  int64_t created = 0;  // seconds since 1970
  std::string model;
  std::shared_ptr<const data::Tokenizer> tokenizer;
};

class AnswerFormat {
 public:
  virtual ~AnswerFormat() = default;
  virtual ErrorShape error_shape() const { return ErrorShape::openai; }
  virtual std::string whole(const std::vector<WholeAnswer>& answers, const Usage& usage) = 0;
  // Events, as the text of the stream: before a choice's first piece, for each piece, and at the end of the stream.
  virtual std::string first(size_t choice) = 0;
  // Where the plan asks for them, before the choice's first piece: of each token of its prompt but the first.
  virtual std::string prompt(size_t choice, const std::vector<engine::PromptLogprob>& logprobs);
  virtual std::string piece(size_t choice, const Piece& piece) = 0;
  virtual std::string last(const Usage& usage) = 0;
  virtual std::string error(const ApiError& error);
};

// An event of server-sent events.
std::string event(const nlohmann::ordered_json& data);
inline constexpr const char* last_event = "data: [DONE]\n\n";

nlohmann::ordered_json usage_json(const Usage& usage);
// A whole answer, told apart: for each of its tokens what became certain with it, and at the end once without.
void read_whole(AnswerParser& parser, const WholeAnswer& answer,
                const std::function<void(const AnswerParts& parts, std::span<const AnsweredToken> token)>& take);
const char* finish_reason(AnswerEnd end);  // OpenAI's word
float finite_logprob(float logprob);       // −∞ has no JSON: −9999, as vLLM has it
// vLLM's prompt_logprobs: null for the first token, then {"id": {"logprob", "rank", "decoded_token"}} with
// `alternatives` of the likeliest.
nlohmann::ordered_json prompt_logprobs_json(const data::Tokenizer& tokenizer,
                                            const std::vector<engine::PromptLogprob>& logprobs, int64_t alternatives);

// OpenAI's list of tokens with their log-probabilities: [{"token", "logprob", "bytes", "top_logprobs"}, …].
nlohmann::ordered_json token_logprobs_json(const data::Tokenizer& tokenizer, std::span<const AnsweredToken> tokens);

std::unique_ptr<AnswerFormat> chat_format(AnswerHead head, const GenerationSettings& settings,
                                          const AnswerReading& reading);
// What stands before a choice's answer.
struct Echo {
  std::string text;
  std::vector<int32_t> tokens;  // of the prompt, where their log-probabilities are asked for
};
std::unique_ptr<AnswerFormat> completion_format(AnswerHead head, const GenerationSettings& settings,
                                                std::vector<Echo> echoes);

struct TgiOptions {
  std::string prompt;
  int64_t prompt_tokens = 0;
  bool return_full_text = false, details = false;
  bool list = false;                  // POST / answers a list of one
  std::optional<uint64_t> seed = {};  // as details show it: where sampling was asked for
};
std::unique_ptr<AnswerFormat> tgi_format(AnswerHead head, const GenerationSettings& settings, TgiOptions options);

}  // namespace lathe::http
