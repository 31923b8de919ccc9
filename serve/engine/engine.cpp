#include "serve/engine/engine.h"

#include <algorithm>
#include <cmath>
#include <list>
#include <numeric>
#include <utility>

#include "autograd/recording.h"
#include "core/error.h"
#include "kernels/copy/copy.h"
#include "kernels/cuda/profiler_range.h"
#include "serve/engine/cache_size.h"
#include "serve/engine/sampler.h"
#include "serve/engine/step_batch.h"

namespace lathe::engine {
namespace {

SchedulerOptions scheduler_options(const EngineOptions& options, const nn::KvCache& cache) {
  SchedulerOptions result;
  result.page_size = cache.page_size();
  result.pages = cache.page_count();
  result.states = cache.state_count();
  result.max_sequences = options.max_sequences;
  if (result.states > 0) result.max_sequences = std::min(result.max_sequences, result.states);
  result.max_tokens_per_step = options.max_tokens_per_step;
  result.enable_prefix_caching = options.enable_prefix_caching;
  result.num_speculative_tokens = options.num_speculative_tokens;
  return result;
}

nn::CacheDTypes cache_dtypes(const nn::Transformer& model, const EngineOptions& options) {
  return {options.kv_cache_dtype.value_or(model.dtype()), model.dtype()};
}

nn::KvCache make_cache(const nn::Transformer& model, const EngineOptions& options) {
  const int64_t page_size = nn::KvCache::default_page_size;
  const nn::CacheDTypes dtypes = cache_dtypes(model, options);
  CacheSize size{(options.kv_cache_tokens + page_size - 1) / page_size,
                 state_count(model.config(), options.max_sequences, options.enable_prefix_caching)};
  if (options.kv_cache_memory) size = cache_size_of(model.config(), dtypes, size.states, *options.kv_cache_memory);
  return {model.config(), dtypes, size.pages, page_size, model.device(), size.states};
}

void begin_grammar(Sequence& sequence) {
  sequence.grammar_begin = sequence.output().size();
  sequence.position = sequence.masks->position_after({});
}
bool ends_with(std::span<const int32_t> tokens, std::span<const int32_t> end) {
  return tokens.size() >= end.size() && std::ranges::equal(tokens.last(end.size()), end);
}

// The grammar's tokens; where the answer may end, the stop tokens, too. Those that min_tokens bans stay banned, unless
// the answer can only end.
void follow_grammar(RowToDraw& row, Sequence& sequence) {
  if (!sequence.masks->is_current(sequence.position))
    sequence.position = sequence.masks->position_after(sequence.output().subspan(*sequence.grammar_begin));
  const TokenMasks::Mask& mask = sequence.masks->mask(sequence.position);
  row.allowed = mask.tokens;
  if (mask.empty) row.banned = {};
  if (!sequence.masks->may_end(sequence.position)) return;
  for (const int32_t token : sequence.request.stop_token_ids)
    if (token >= 0 && static_cast<size_t>(token) < row.allowed.size() * 64)
      row.allowed[static_cast<size_t>(token) / 64] |= uint64_t{1} << (token % 64);
}

// The row after a sequence's last token, or after `guessed` more, which end `output`.
RowToDraw row_of(Sequence& sequence, std::span<const int32_t> output, size_t guessed) {
  const Request& request = sequence.request;
  RowToDraw row{
      .sampling = {request.sampling, static_cast<uint64_t>(sequence.length()) + guessed, sequence.prompt(), output},
      .logit_bias = request.logit_bias,
      .top_logprobs = request.top_logprobs};
  if (static_cast<int64_t>(output.size()) < request.min_tokens) row.banned = request.stop_token_ids;
  if (sequence.masks && !sequence.grammar_begin) row.banned = request.stop_token_ids;
  if (sequence.grammar_begin) follow_grammar(row, sequence);
  return row;
}

// Rows for all that sample. `outputs` keeps what is guessed beyond a sequence's own output.
std::vector<RowToDraw> rows_of(std::span<const ScheduledSequence> scheduled, std::list<std::vector<int32_t>>& outputs) {
  std::vector<RowToDraw> rows;
  for (const ScheduledSequence& entry : scheduled) {
    if (!entry.samples()) continue;
    Sequence& sequence = *entry.sequence;
    rows.push_back(row_of(sequence, sequence.output(), 0));
    const std::vector<int32_t>& guesses = sequence.guesses;
    if (guesses.empty()) continue;
    outputs.emplace_back(sequence.output().begin(), sequence.output().end());
    outputs.back().insert(outputs.back().end(), guesses.begin(), guesses.end());
    for (size_t i = 1; i <= guesses.size(); ++i)
      rows.push_back(row_of(sequence, std::span(outputs.back()).first(sequence.output().size() + i), i));
  }
  return rows;
}

template <class T>
Tensor vector_tensor(const std::vector<T>& values) {
  return Tensor::of<T>(values, {static_cast<int64_t>(values.size())});
}

}  // namespace

Engine::Engine(const nn::Transformer& model, const EngineOptions& options)
    : model_(model),
      cache_(make_cache(model, options)),
      scheduler_(scheduler_options(options, cache_)),
      logits_temperature_(options.logits_temperature),
      grammars_(options.tokenizer, model.config().vocab_size) {
  if (options.device_graphs > 0 && model.device().kind != DeviceKind::cpu)
    decode_graphs_.emplace(model_, cache_, options.device_graphs, logits_temperature_);
}

RequestId Engine::add(Request request) {
  check_request(request, model_);
  Sequence sequence;
  sequence.scope = std::make_shared<const PrefixScope>(PrefixScope{adapter_of(request, model_), request.cache_salt});
  if (request.grammar) {
    sequence.masks = grammars_.masks_of(request.grammar);
    if (request.grammar_after.empty()) begin_grammar(sequence);
  }
  sequence.tokens = std::move(request.prompt);
  sequence.prompt_length = sequence.tokens.size();
  sequence.id = next_id_++;
  sequence.request = std::move(request);
  const RequestId id = sequence.id;
  scheduler_.add(std::move(sequence));
  return id;
}

std::vector<TokenOutput> Engine::step() {
  const autograd::NoGradScope no_grad;
  std::vector<ScheduledSequence> scheduled = scheduler_.schedule();
  started_.clear();
  for (const ScheduledSequence& entry : scheduled)
    if (!std::exchange(entry.sequence->started, true)) started_.push_back(entry.sequence->id);
  if (scheduled.empty()) return {};
  // Sequences of one adapter side by side: a linear takes them as one run of rows.
  std::stable_sort(scheduled.begin(), scheduled.end(), [](const ScheduledSequence& a, const ScheduledSequence& b) {
    return a.sequence->adapter() < b.sequence->adapter();
  });
  copy_pages();
  grammars_.trim();
  std::list<std::vector<int32_t>> guessed_outputs;
  const std::vector<RowToDraw> rows = rows_of(scheduled, guessed_outputs);
  std::vector<DrawnToken> drawn;
  try {
    drawn = run(scheduled, rows);
  } catch (...) {
    scheduler_.step_failed(scheduled);
    throw;
  }
  return publish(scheduled, drawn);
}

std::vector<DrawnToken> Engine::run(const std::vector<ScheduledSequence>& scheduled, std::span<const RowToDraw> rows) {
  // Prefill runs long kernels, which hide their launches; a step of single tokens is all launches.
  const bool decodes = std::ranges::all_of(
      scheduled, [](const ScheduledSequence& entry) { return entry.rows() == 1 && entry.samples(); });
  if (decodes && decode_graphs_ && !model_.asks_the_host(adapters_of(scheduled)))
    return decode_graphs_->run(scheduled, rows);

  const StepBatch step(scheduled);
  std::vector<int32_t> samples(scheduled.size());
  std::iota(samples.begin(), samples.end(), 0);
  const nn::TokenBatch batch{vector_tensor(step.ids),
                             {vector_tensor(step.bounds), vector_tensor(step.positions), vector_tensor(samples)},
                             adapters_of(scheduled)};
  nn::PagedAttention attention(model_.config(), cache_, step.paged(cache_));
  const Tensor hidden = [&] {
    const kernels::ProfilerRange range("forward");
    return model_.forward(batch, attention).value();
  }();

  read_prompts(model_, scheduled, step.bounds, hidden, logits_temperature_);

  // The last row of each sequence that has reached its end, and its guesses'; the others are still being prefilled.
  const auto count = static_cast<int64_t>(rows.size());
  if (count == 0) return {};
  Tensor last = hidden;
  if (count < hidden.dim(0)) {
    last = Tensor::empty({count, hidden.dim(1)}, hidden.dtype(), hidden.device());
    int64_t next = 0;
    for (size_t i = 0; i < scheduled.size(); ++i) {
      if (!scheduled[i].samples()) continue;
      const auto sampled = static_cast<int64_t>(scheduled[i].sequence->guesses.size()) + 1;
      const int64_t end = step.bounds[i + 1];
      kernels::copy(last.slice(0, next, next + sampled), hidden.slice(0, end - sampled, end));
      next += sampled;
    }
  }
  return draw(model_.logits(last, logits_temperature_), rows);
}

std::vector<TokenOutput> Engine::publish(const std::vector<ScheduledSequence>& scheduled, std::span<DrawnToken> drawn) {
  std::vector<TokenOutput> outputs;
  for (const ScheduledSequence& entry : scheduled) {
    Sequence& sequence = *entry.sequence;
    if (!entry.samples()) {
      const bool whole = entry.reaches_end();
      scheduler_.advance(sequence, entry.tokens);
      if (!whole) continue;
      outputs.push_back(publish_embedding(sequence));
      scheduler_.finish(&sequence);
      continue;
    }
    // What was drawn after a guess counts as long as all guesses before it were what was drawn.
    const std::vector<int32_t> guesses = std::move(sequence.guesses);
    sequence.guesses.clear();
    size_t right = 0;
    outputs.push_back(publish(sequence, drawn[0]));
    while (!outputs.back().finish_reason && right < guesses.size() && outputs.back().token == guesses[right])
      outputs.push_back(publish(sequence, drawn[++right]));
    drawn = drawn.subspan(1 + guesses.size());
    stats_.draft_tokens += static_cast<int64_t>(guesses.size());
    stats_.accepted_tokens += static_cast<int64_t>(right);
    sequence.guessing.add(static_cast<int64_t>(guesses.size()), static_cast<int64_t>(right), sequence.length());
    scheduler_.advance(sequence, entry.tokens + static_cast<int64_t>(right));
    if (outputs.back().finish_reason) scheduler_.finish(&sequence);
  }
  return outputs;
}

TokenOutput Engine::publish(Sequence& sequence, DrawnToken& drawn) {
  const Request& request = sequence.request;
  TokenOutput output{.request = sequence.id,
                     .token = drawn.token,
                     .logprob = drawn.logprob,
                     .top_logprobs = std::move(drawn.top_logprobs)};
  if (drawn.token < 0) {
    output.finish_reason = FinishReason::failed;
    output.failure = std::string("the model's distribution of the next token ") +
                     kernels::reason_of(static_cast<kernels::BrokenLogits>(drawn.token)) +
                     "; the weights of the model or the adapter are broken, or overflow";
    return output;
  }
  if (sequence.output().empty()) describe_prompt(sequence, output);
  ++stats_.generation_tokens;
  sequence.tokens.push_back(output.token);
  const auto& stops = request.stop_token_ids;
  if (std::find(stops.begin(), stops.end(), output.token) != stops.end()) {
    output.finish_reason = FinishReason::stop;
  } else if (static_cast<int64_t>(sequence.output().size()) >= request.max_tokens) {
    output.finish_reason = FinishReason::length;
  } else if (sequence.grammar_begin) {
    sequence.position = sequence.masks->advanced(sequence.position, output.token);
  } else if (sequence.masks && ends_with(sequence.output(), request.grammar_after)) {
    begin_grammar(sequence);
  }
  return output;
}

TokenOutput Engine::publish_embedding(Sequence& sequence) {
  TokenOutput output{.request = sequence.id, .token = -1};
  describe_prompt(sequence, output);
  output.embedding = embedding_of(sequence.prompt_reading);
  output.finish_reason = FinishReason::stop;
  if (!std::ranges::all_of(output.embedding, [](float value) { return std::isfinite(value); })) {
    output.finish_reason = FinishReason::failed;
    output.failure = "the model's hidden states are not finite; the weights of the model or the adapter are broken";
  }
  return output;
}

// What a request's first output tells of its prompt.
void Engine::describe_prompt(Sequence& sequence, TokenOutput& output) {
  output.cached_tokens = sequence.prompt_tokens_cached;
  output.prompt_logprobs = std::move(sequence.prompt_reading.logprobs);
  stats_.prompt_tokens += static_cast<int64_t>(sequence.prompt_length);
  stats_.prefix_cache_hits += *output.cached_tokens;
}

void Engine::copy_pages() {
  if (scheduler_.copies().empty() && scheduler_.state_copies().empty()) return;
  std::vector<int32_t> from, to;
  for (const PageCopy& copy : scheduler_.copies()) {
    from.push_back(copy.from);
    to.push_back(copy.to);
  }
  try {
    if (!from.empty()) cache_.copy_pages(from, to);
    for (const StateCopy& copy : scheduler_.state_copies()) cache_.copy_state(copy.from, copy.to);
  } catch (...) {
    scheduler_.copying_failed();
    throw;
  }
  scheduler_.copied();
}

void Engine::release_adapter(std::string_view adapter) {
  const int64_t requests = requests_of_adapter(adapter);
  if (requests > 0)
    throw ConfigError("adapter", "'" + std::string(adapter) + "' is used by " + std::to_string(requests) +
                                     " requests; it may go when they have ended");
  scheduler_.forget_prefixes_of_adapter(adapter);
  if (decode_graphs_) decode_graphs_->forget();
}

EngineStats Engine::stats() const {
  EngineStats stats = stats_;
  stats.requests_running = scheduler_.running_count();
  stats.requests_waiting = scheduler_.waiting_count();
  stats.pages_cached = scheduler_.pool().cached_count();
  stats.pages_free = scheduler_.pool().free_count();
  stats.pages_used = cache_.page_count() - stats.pages_cached - stats.pages_free;
  stats.slots_used = stats.pages_used * cache_.page_size();
  stats.slots_empty = scheduler_.slots_empty();
  stats.prefix_cache_queries = stats.prompt_tokens;
  stats.preemptions = scheduler_.preemptions();
  return stats;
}

}  // namespace lathe::engine
