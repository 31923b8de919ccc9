// What the engine's tests share: the tiny Llama, and when completions are the same.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <optional>
#include <vector>

#include "nn/model_files.h"
#include "serve/engine/engine.h"
#include "tests/support/source_dir.h"

namespace lathe::engine {

// max_positions 0: the model's own.
inline nn::Transformer tiny_model(DType dtype, Device device = {}, int64_t max_positions = 0,
                                  const std::optional<nn::Quantization>& quantization = {}) {
  const auto folder = std::filesystem::path(source_dir) / "tests/golden/tiny_llama/untied";
  const nn::ModelFiles files = nn::open_model_files(folder);
  return nn::Transformer(
      files.config, *files.weights,
      {.dtype = dtype, .max_positions = max_positions, .quantized_linears = quantization, .device = device});
}

inline void expect_same(const std::vector<Completion>& found, const std::vector<Completion>& expected) {
  ASSERT_EQ(found.size(), expected.size());
  for (size_t i = 0; i < found.size(); ++i) {
    EXPECT_EQ(found[i].tokens, expected[i].tokens) << "request " << i;
    EXPECT_EQ(found[i].logprobs, expected[i].logprobs) << "request " << i;  // bits
    EXPECT_EQ(found[i].finish_reason, expected[i].finish_reason) << "request " << i;
  }
}

// What an engine has published, by request.
struct Answer {
  Completion completion;
  int64_t cached_tokens = -1;
  bool ended = false;
};
using Answers = std::map<RequestId, Answer>;

// One step.
inline void step_into(Answers& answers, Engine& engine) {
  for (const TokenOutput& output : engine.step()) {
    Answer& answer = answers[output.request];
    EXPECT_FALSE(answer.ended) << "request " << output.request;
    EXPECT_EQ(output.cached_tokens.has_value(), answer.cached_tokens < 0) << "told once, on the first output";
    if (output.cached_tokens) answer.cached_tokens = *output.cached_tokens;
    answer.ended = output.finish_reason.has_value();
    if (answer.ended) answer.completion.finish_reason = *output.finish_reason;
    if (output.finish_reason == FinishReason::stop) continue;
    answer.completion.tokens.push_back(output.token);
    answer.completion.logprobs.push_back(output.logprob);
  }
}

inline Answers answers_of(Engine& engine) {
  Answers answers;
  while (!engine.idle()) step_into(answers, engine);
  return answers;
}

inline std::vector<Completion> completions_of(const Answers& answers) {
  std::vector<Completion> completions;
  for (const auto& [id, answer] : answers) completions.push_back(answer.completion);
  return completions;
}

// Nothing waits, runs or owns a page.
inline void expect_all_given_back(const Engine& engine, int64_t pages) {
  const EngineStats stats = engine.stats();
  EXPECT_EQ(stats.requests_running + stats.requests_waiting, 0);
  EXPECT_EQ(stats.pages_used, 0);
  EXPECT_EQ(stats.pages_cached + stats.pages_free, pages);
}

}  // namespace lathe::engine
