#include "serve/http/metrics.h"

#include <fmt/format.h>

#include <algorithm>

namespace lathe::http {
namespace {

// vLLM's buckets, in seconds.
constexpr std::array first_token_bounds = {.001, .005, .01, .02, .04, .06, .08, .1,  .25, .5,
                                           .75,  1.,   2.5, 5.,  7.5, 10., 20., 40., 80.};
constexpr std::array inter_token_bounds = {.01, .025, .05, .075, .1, .15, .2, .3, .4, .5, .75, 1., 2.5, 5.};
constexpr std::array request_bounds = {.3, .5, .8, 1., 1.5, 2., 2.5, 5., 10., 15., 20., 30., 40., 50., 60.};
constexpr std::array step_bounds = {.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1., 2.5, 5., 10.};
constexpr std::array token_bounds = {1., 2., 5., 10., 20., 50., 100., 200., 500., 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5};
constexpr std::array batch_bounds = {1., 2., 4., 8., 16., 32., 64., 128., 256.};

double seconds_between(Clock::time_point begin, Clock::time_point end) {
  return std::chrono::duration<double>(end - begin).count();
}

std::string quoted_label(std::string_view value) {
  std::string text;
  for (const char c : value) {
    if (c == '"' || c == '\\') text += '\\';
    if (c == '\n') {
      text += "\\n";
    } else {
      text += c;
    }
  }
  return text;
}

void write_head(std::string& text, std::string_view name, std::string_view help, std::string_view type) {
  text += fmt::format("# HELP {} {}\n# TYPE {} {}\n", name, help, name, type);
}

void write_value(std::string& text, std::string_view name, std::string_view help, std::string_view type,
                 std::string_view labels, double value) {
  write_head(text, name, help, type);
  text += fmt::format("{}{{{}}} {}\n", name, labels, value);
}

}  // namespace

void Histogram::observe(double value) {
  ++counts_[static_cast<size_t>(std::ranges::lower_bound(bounds_, value) - bounds_.begin())];
  ++count_;
  sum_ += value;
}

void Histogram::write(std::string& text, std::string_view name, std::string_view help, std::string_view labels) const {
  write_head(text, name, help, "histogram");
  uint64_t below = 0;
  for (size_t i = 0; i < bounds_.size(); ++i) {
    below += counts_[i];
    text += fmt::format("{}_bucket{{{},le=\"{}\"}} {}\n", name, labels, bounds_[i], below);
  }
  text += fmt::format("{}_bucket{{{},le=\"+Inf\"}} {}\n{}_sum{{{}}} {}\n{}_count{{{}}} {}\n", name, labels, count_,
                      name, labels, sum_, name, labels, count_);
}

Metrics::Metrics(std::string_view model_name)
    : labels_("model_name=\"" + quoted_label(model_name) + "\""),
      time_to_first_token_(first_token_bounds),
      inter_token_(inter_token_bounds),
      e2e_(request_bounds),
      queue_(request_bounds),
      prefill_(request_bounds),
      decode_(request_bounds),
      inference_(request_bounds),
      step_(step_bounds),
      prompt_tokens_(token_bounds),
      generated_(token_bounds),
      batch_(batch_bounds),
      ended_{{"abort", 0}, {"error", 0}, {"length", 0}, {"stop", 0}} {}

void Metrics::token_published(bool first, const SequenceTimes& before, Clock::time_point now) {
  const std::lock_guard lock(mutex_);
  if (first) {
    time_to_first_token_.observe(seconds_between(before.arrived, now));
  } else {
    inter_token_.observe(seconds_between(before.last_token, now));
  }
}

void Metrics::sequence_ended(std::string_view reason, const SequenceTimes& times, int64_t prompt_tokens,
                             int64_t generated_tokens) {
  const std::lock_guard lock(mutex_);
  ++ended_[std::string(reason)];
  if (generated_tokens == 0) return;
  e2e_.observe(seconds_between(times.arrived, times.last_token));
  queue_.observe(seconds_between(times.arrived, times.started));
  prefill_.observe(seconds_between(times.started, times.first_token));
  decode_.observe(seconds_between(times.first_token, times.last_token));
  inference_.observe(seconds_between(times.started, times.last_token));
  prompt_tokens_.observe(static_cast<double>(prompt_tokens));
  generated_.observe(static_cast<double>(generated_tokens));
}

void Metrics::step_done(double seconds, int64_t sequences) {
  const std::lock_guard lock(mutex_);
  step_.observe(seconds);
  batch_.observe(static_cast<double>(sequences));
}

void Metrics::request_rejected(unsigned status) {
  const std::lock_guard lock(mutex_);
  ++rejected_[status];
}

void Metrics::engine_stats(const engine::EngineStats& stats) {
  const std::lock_guard lock(mutex_);
  stats_ = stats;
}

engine::EngineStats Metrics::stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

std::string Metrics::text() const {
  const std::lock_guard lock(mutex_);
  std::string text;
  const auto gauge = [&](std::string_view name, std::string_view help, double value) {
    write_value(text, name, help, "gauge", labels_, value);
  };
  const auto counter = [&](std::string_view name, std::string_view help, int64_t value) {
    write_value(text, name, help, "counter", labels_, static_cast<double>(value));
  };
  const int64_t pages = stats_.pages_used + stats_.pages_cached + stats_.pages_free;
  gauge("vllm:num_requests_running", "Sequences in the batch.", static_cast<double>(stats_.requests_running));
  gauge("vllm:num_requests_waiting", "Sequences that wait for a place.", static_cast<double>(stats_.requests_waiting));
  gauge("vllm:kv_cache_usage_perc", "Share of the KV pages that belong to a sequence, 0 to 1.",
        pages > 0 ? static_cast<double>(stats_.pages_used) / static_cast<double>(pages) : 0.0);
  gauge("lathe:kv_cache_waste_perc", "Share of those pages' room that holds no token, 0 to 1.",
        stats_.slots_used > 0 ? static_cast<double>(stats_.slots_empty) / static_cast<double>(stats_.slots_used) : 0.0);
  write_head(text, "lathe:kv_cache_pages", "KV pages by state.", "gauge");
  for (const auto& [state, count] : {std::pair{"used", stats_.pages_used}, std::pair{"cached", stats_.pages_cached},
                                     std::pair{"free", stats_.pages_free}})
    text += fmt::format("lathe:kv_cache_pages{{{},state=\"{}\"}} {}\n", labels_, state, count);
  counter("vllm:prefix_cache_queries_total", "Prompt tokens looked up.", stats_.prefix_cache_queries);
  counter("vllm:prefix_cache_hits_total", "Prompt tokens found.", stats_.prefix_cache_hits);
  counter("vllm:num_preemptions_total", "Sequences put back to wait.", stats_.preemptions);
  counter("vllm:prompt_tokens_total", "Prompt tokens of sequences that got a token.", stats_.prompt_tokens);
  counter("vllm:generation_tokens_total", "Tokens generated.", stats_.generation_tokens);
  counter("vllm:spec_decode_num_draft_tokens_total", "Tokens guessed by prompt lookup.", stats_.draft_tokens);
  counter("vllm:spec_decode_num_accepted_tokens_total", "Of those, right.", stats_.accepted_tokens);
  write_head(text, "vllm:request_success_total", "Sequences that ended.", "counter");
  for (const auto& [reason, count] : ended_)
    text += fmt::format("vllm:request_success_total{{{},finished_reason=\"{}\"}} {}\n", labels_, reason, count);
  write_head(text, "lathe:requests_rejected_total", "Requests answered with an error, by status.", "counter");
  for (const auto& [status, count] : rejected_)
    text += fmt::format("lathe:requests_rejected_total{{{},status=\"{}\"}} {}\n", labels_, status, count);
  time_to_first_token_.write(text, "vllm:time_to_first_token_seconds", "From arrival to the first token.", labels_);
  inter_token_.write(text, "vllm:inter_token_latency_seconds", "Between a sequence's tokens.", labels_);
  e2e_.write(text, "vllm:e2e_request_latency_seconds", "From arrival to the last token.", labels_);
  queue_.write(text, "vllm:request_queue_time_seconds", "From arrival to the first step.", labels_);
  prefill_.write(text, "vllm:request_prefill_time_seconds", "From the first step to the first token.", labels_);
  decode_.write(text, "vllm:request_decode_time_seconds", "From the first to the last token.", labels_);
  inference_.write(text, "vllm:request_inference_time_seconds", "From the first step to the last token.", labels_);
  prompt_tokens_.write(text, "vllm:request_prompt_tokens", "Tokens of a prompt.", labels_);
  generated_.write(text, "vllm:request_generation_tokens", "Tokens of an answer.", labels_);
  step_.write(text, "lathe:step_seconds", "One step of the engine.", labels_);
  batch_.write(text, "lathe:step_sequences", "Sequences in a step.", labels_);
  return text;
}

}  // namespace lathe::http
