// What /metrics shows, in Prometheus's text format under the names that vLLM's dashboards read.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <map>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "serve/engine/engine.h"

namespace lathe::http {

using Clock = std::chrono::steady_clock;

class Histogram {
 public:
  explicit Histogram(std::span<const double> bounds) : bounds_(bounds), counts_(bounds.size() + 1) {}
  void observe(double value);
  void write(std::string& text, std::string_view name, std::string_view help, std::string_view labels) const;

 private:
  std::span<const double> bounds_;
  std::vector<uint64_t> counts_;  // of values up to each bound and above the one before; then the rest
  uint64_t count_ = 0;
  double sum_ = 0;
};

// When one sequence passed through the engine. It started with the step that computed the first of its prompt.
struct SequenceTimes {
  Clock::time_point arrived, started, first_token, last_token;
};

// Any thread may call any function.
class Metrics {
 public:
  explicit Metrics(std::string_view model_name);

  void token_published(bool first, const SequenceTimes& before, Clock::time_point now);
  // `reason`: stop, length, abort or error. A sequence that never got a token was only queued.
  void sequence_ended(std::string_view reason, const SequenceTimes& times, int64_t prompt_tokens,
                      int64_t generated_tokens);
  void step_done(double seconds, int64_t sequences);
  void request_rejected(unsigned status);
  void engine_stats(const engine::EngineStats& stats);

  engine::EngineStats stats() const;
  std::string text() const;

 private:
  std::string labels_;  // model_name="…"
  mutable std::mutex mutex_;
  engine::EngineStats stats_;
  Histogram time_to_first_token_, inter_token_, e2e_, queue_, prefill_, decode_, inference_, step_, prompt_tokens_,
      generated_, batch_;
  std::map<std::string, uint64_t, std::less<>> ended_;
  std::map<unsigned, uint64_t> rejected_;
};

}  // namespace lathe::http
