#include "serve/http/generation.h"

#include <fmt/format.h>

#include <utility>

namespace lathe::http {
namespace {

class Generation : public std::enable_shared_from_this<Generation> {
 public:
  Generation(const Call& call, GenerationPlan plan);
  void start();

 private:
  std::vector<engine::Request> requests() const;
  void take(std::vector<EngineOutput> outputs);
  void take_one(EngineOutput& output);
  void fail(const ApiError& error);
  void finish();
  void note_usage();

  const Call call_;
  GenerationPlan plan_;
  std::vector<Choice> choices_;
  std::vector<WholeAnswer> answers_;  // where nothing is streamed
  size_t open_;                       // choices that have not ended
  Usage usage_;
  std::vector<char> cached_known_;  // of each prompt, whether its cached tokens were counted
  SubmissionId submission_ = 0;
  bool over_ = false;
};

Generation::Generation(const Call& call, GenerationPlan plan)
    : call_(call),
      plan_(std::move(plan)),
      open_(plan_.prompts.size() * static_cast<size_t>(plan_.settings.n)),
      cached_known_(plan_.prompts.size(), 0) {
  for (size_t i = 0; i < open_; ++i) choices_.emplace_back(call.service.loaded().text.tokenizer, plan_.settings);
  answers_.resize(open_);
  for (const auto& prompt : plan_.prompts) usage_.prompt_tokens += static_cast<int64_t>(prompt.size());
}

std::vector<engine::Request> Generation::requests() const {
  const GenerationSettings& settings = plan_.settings;
  std::vector<engine::Request> requests;
  for (const std::vector<int32_t>& prompt : plan_.prompts) {
    engine::Request request;
    request.prompt = prompt;
    request.sampling = settings.sampling;
    request.max_tokens = std::max<int64_t>(1, call_.service.answer_length(prompt, settings.max_tokens));
    request.min_tokens = std::min(settings.min_tokens, request.max_tokens);
    if (!settings.ignore_eos) request.stop_token_ids = call_.service.loaded().text.stop_token_ids;
    request.stop_token_ids.insert(request.stop_token_ids.end(), settings.stop_token_ids.begin(),
                                  settings.stop_token_ids.end());
    std::erase_if(request.stop_token_ids, [&](int32_t id) { return id >= call_.service.loaded().text.vocab_size; });
    request.logit_bias = settings.logit_bias;
    request.grammar = settings.grammar;
    request.grammar_after = settings.grammar_after;
    request.top_logprobs = static_cast<int32_t>(settings.top_logprobs.value_or(0));
    if (plan_.prompt_logprobs) request.prompt_logprobs = static_cast<int32_t>(*plan_.prompt_logprobs);
    request.adapter = plan_.adapter;
    request.cache_salt = settings.cache_salt;
    request.priority = settings.priority;
    for (int64_t i = 0; i < settings.n; ++i) {
      requests.push_back(request);
      ++request.sampling.seed;
    }
  }
  return requests;
}

void Generation::start() {
  // The listener holds the generation, and through it the connection, until the last output.
  const auto self = shared_from_this();
  Listener listener;
  listener.outputs = [self](std::vector<EngineOutput> outputs) {
    self->call_.exchange->post([self, outputs = std::move(outputs)]() mutable { self->take(std::move(outputs)); });
  };
  listener.failed = [self](const ApiError& error) { self->call_.exchange->post([self, error] { self->fail(error); }); };
  submission_ = call_.service.engine.submit(requests(), std::move(listener), call_.audit->arrived);
  call_.exchange->on_gone([weak = weak_from_this()] {
    const auto generation = weak.lock();
    if (!generation || generation->over_) return;
    generation->over_ = true;
    generation->call_.audit->status = 499;
    generation->note_usage();
    generation->call_.service.engine.cancel(generation->submission_, std::nullopt, "abort");
  });
  if (!plan_.settings.stream) return;
  call_.audit->status = 200;
  call_.exchange->begin_stream({.content_type = "text/event-stream; charset=utf-8",
                                .headers = {{"Cache-Control", "no-cache"}, {"X-Accel-Buffering", "no"}}});
  for (size_t i = 0; i < choices_.size(); ++i) call_.exchange->send(plan_.format->first(i));
}

void Generation::take(std::vector<EngineOutput> outputs) {
  for (EngineOutput& output : outputs) {
    if (over_) return;  // the client may go at any send
    take_one(output);
  }
  if (open_ == 0 && !over_) finish();
}

void Generation::take_one(EngineOutput& output) {
  Choice& choice = choices_[output.index];
  if (choice.ended()) return;  // the engine was a step ahead of a stop string
  if (output.output.cached_tokens) {
    const size_t prompt = output.index / static_cast<size_t>(plan_.settings.n);
    if (std::exchange(cached_known_[prompt], 1) == 0) usage_.cached_tokens += *output.output.cached_tokens;
  }
  if (plan_.prompt_logprobs && output.output.cached_tokens) {
    const std::string events = plan_.format->prompt(output.index, output.output.prompt_logprobs);
    if (plan_.settings.stream) call_.exchange->send(events);
  }
  const bool ended_there = output.output.finish_reason.has_value();
  Piece piece = choice.push(output.output);
  if (piece.end) {
    --open_;
    usage_.completion_tokens += choice.completion_tokens();
    if (!ended_there) call_.service.engine.cancel(submission_, output.index, "stop");
  }
  if (plan_.settings.stream) {
    call_.exchange->send(plan_.format->piece(output.index, piece));
    return;
  }
  WholeAnswer& answer = answers_[output.index];
  answer.text += piece.text;
  answer.tokens.insert(answer.tokens.end(), std::make_move_iterator(piece.tokens.begin()),
                       std::make_move_iterator(piece.tokens.end()));
  answer.completion_tokens = choice.completion_tokens();
  if (piece.end) answer.end = *piece.end;
}

void Generation::finish() {
  over_ = true;
  note_usage();
  if (plan_.settings.stream) {
    call_.exchange->send(plan_.format->last(usage_));
    call_.exchange->end_stream();
  } else {
    call_.reply(Reply{.body = plan_.format->whole(answers_, usage_)});
  }
}

void Generation::fail(const ApiError& error) {
  if (std::exchange(over_, true)) return;
  note_usage();
  if (!plan_.settings.stream) return call_.reply(error, plan_.format->error_shape());
  call_.audit->status = error.status();
  call_.exchange->send(plan_.format->error(error));
  call_.exchange->end_stream();
}

void Generation::note_usage() {
  call_.audit->prompt_tokens = usage_.prompt_tokens;
  call_.audit->completion_tokens = 0;
  for (const Choice& choice : choices_) call_.audit->completion_tokens += choice.completion_tokens();
}

}  // namespace

void start_generation(const Call& call, GenerationPlan plan) {
  std::make_shared<Generation>(call, std::move(plan))->start();
}

std::string new_id(const char* prefix) {
  return fmt::format("{}{:016x}{:08x}", prefix, random_seed(), static_cast<uint32_t>(random_seed()));
}

}  // namespace lathe::http
