// Requests that begin alike, for models of 96 tokens whose layers keep something else than keys and values.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "core/random.h"
#include "tests/serve/tiny_engine.h"

namespace lathe::engine {

inline nn::Transformer tiny_golden(const std::string& name, DType dtype, Device device = {}) {
  const nn::ModelFiles files = nn::open_model_files(std::filesystem::path(source_dir) / "tests/golden" / name);
  return nn::Transformer(files.config, *files.weights, {.dtype = dtype, .device = device});
}

inline Request small_request(std::vector<int32_t> prompt, int64_t max_tokens, float temperature) {
  Request request;
  request.prompt = std::move(prompt);
  request.max_tokens = max_tokens;
  request.sampling.temperature = temperature;
  request.sampling.seed = request.prompt.size();
  return request;
}

inline std::vector<int32_t> small_tokens(RandomStream& random, int64_t count) {
  std::vector<int32_t> made;
  for (int64_t i = 0; i < count; ++i) made.push_back(static_cast<int32_t>(random.below(96)));
  return made;
}

// Beginnings that are shared up to every place within a page, and at its end.
inline std::vector<Request> requests_that_begin_alike() {
  RandomStream random(3, RandomPurpose::test);
  const std::vector<int32_t> base = small_tokens(random, 50);
  std::vector<Request> requests;
  for (const auto& [shared, own] : {std::pair{50, 0}, {33, 9}, {50, 0}, {17, 20}, {32, 1}, {31, 4}, {47, 3}}) {
    std::vector<int32_t> prompt(base.begin(), base.begin() + shared);
    for (const int32_t token : small_tokens(random, own)) prompt.push_back(token);
    requests.push_back(small_request(std::move(prompt), 8 + own % 5, requests.size() % 2 == 0 ? 0.9f : 0.0f));
  }
  return requests;
}

// Each by itself, nothing of it known.
inline std::vector<Completion> each_alone(const nn::Transformer& model, const std::vector<Request>& requests,
                                          EngineOptions options = {}) {
  options.enable_prefix_caching = false;
  options.num_speculative_tokens = 0;
  std::vector<Completion> alone;
  for (const Request& request : requests) alone.push_back(generate(model, {request}, options)[0]);
  return alone;
}

// Twice, all at once, with the same answers.
inline void expect_two_rounds(Engine& engine, const std::vector<Request>& requests,
                              const std::vector<Completion>& expected) {
  for (int round = 0; round < 2; ++round) {
    for (const Request& request : requests) engine.add(request);
    expect_same(completions_of(answers_of(engine)), expected);
  }
  EXPECT_GT(engine.stats().prefix_cache_hits, 0);
}

}  // namespace lathe::engine
