// A model whose layers convolve as well as attend: what they keep of a sequence's tokens is shared, copied, given up
// and taken back with its pages, and nobody can tell from the answers.
#include <gtest/gtest.h>

#include "core/random.h"
#include "tests/serve/tiny_engine.h"

namespace lathe::engine {
namespace {

nn::Transformer tiny_lfm2(DType dtype, Device device = {}) {
  const nn::ModelFiles files = nn::open_model_files(std::filesystem::path(source_dir) / "tests/golden/tiny_lfm2/plain");
  return nn::Transformer(files.config, *files.weights, {.dtype = dtype, .device = device});
}

Request lfm2_request(std::vector<int32_t> prompt, int64_t max_tokens, float temperature) {
  Request request;
  request.prompt = std::move(prompt);
  request.max_tokens = max_tokens;
  request.sampling.temperature = temperature;
  request.sampling.seed = request.prompt.size();
  return request;
}

// Beginnings that are shared up to every place within a page, and at its end.
std::vector<Request> requests_that_begin_alike() {
  RandomStream random(3, RandomPurpose::test);
  const auto tokens = [&](int64_t count) {
    std::vector<int32_t> made;
    for (int64_t i = 0; i < count; ++i) made.push_back(static_cast<int32_t>(random.below(96)));
    return made;
  };
  const std::vector<int32_t> base = tokens(50);
  std::vector<Request> requests;
  for (const auto& [shared, own] : {std::pair{50, 0}, {33, 9}, {50, 0}, {17, 20}, {32, 1}, {31, 4}, {47, 3}}) {
    std::vector<int32_t> prompt(base.begin(), base.begin() + shared);
    for (const int32_t token : tokens(own)) prompt.push_back(token);
    requests.push_back(lfm2_request(std::move(prompt), 8 + own % 5, requests.size() % 2 == 0 ? 0.9f : 0.0f));
  }
  return requests;
}

std::vector<Completion> lfm2_alone(const nn::Transformer& model, const std::vector<Request>& requests,
                                   EngineOptions options = {}) {
  options.enable_prefix_caching = false;
  options.num_speculative_tokens = 0;
  std::vector<Completion> alone;
  for (const Request& request : requests) alone.push_back(generate(model, {request}, options)[0]);
  return alone;
}

class ShortConvEngine : public testing::TestWithParam<DType> {};  // of keys and values

TEST_P(ShortConvEngine, SharedBeginningsChunksAndHardlyAnyRoomChangeNoBit) {
  const nn::Transformer model = tiny_lfm2(DType::f32);
  const auto requests = requests_that_begin_alike();
  EngineOptions options;
  options.kv_cache_dtype = GetParam();
  options.kv_cache_tokens = 64 * 16;
  const auto expected = lfm2_alone(model, requests, options);
  for (const int64_t pages : {5, 8, 64}) {  // the longest request takes 4, and a copy
    options.kv_cache_tokens = pages * 16;
    for (const int64_t tokens : {1, 7, 512}) {
      options.max_tokens_per_step = tokens;
      Engine engine(model, options);
      for (int round = 0; round < 2; ++round) {
        for (const Request& request : requests) engine.add(request);
        expect_same(completions_of(answers_of(engine)), expected);
      }
      EXPECT_GT(engine.stats().prefix_cache_hits, 0);
      expect_all_given_back(engine, pages);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Caches, ShortConvEngine, testing::Values(DType::f32, DType::i8),
                         [](const auto& info) { return std::string(name_of(info.param)); });

TEST(ShortConvGuesses, WhatWasGuessedWronglyLeavesNothing) {
  const nn::Transformer model = tiny_lfm2(DType::f32);
  std::vector<Request> requests;
  for (int32_t i = 0; i < 4; ++i) {
    std::vector<int32_t> prompt;
    for (int32_t t = 0; t < 30 + i; ++t) prompt.push_back(t % 7 * 11 + i);
    requests.push_back(lfm2_request(std::move(prompt), 60, i % 2 == 0 ? 0.0f : 0.3f));
    requests.back().sampling.repetition_penalty = 0.6f;  // what was seen is likelier
  }
  const auto expected = lfm2_alone(model, requests);
  EngineOptions options;
  options.num_speculative_tokens = 4;
  options.max_sequences = 2;
  Engine engine(model, options);
  for (const Request& request : requests) engine.add(request);
  expect_same(completions_of(answers_of(engine)), expected);
  EXPECT_GT(engine.stats().accepted_tokens, 0);
  EXPECT_LT(engine.stats().accepted_tokens, engine.stats().draft_tokens) << "no guess was wrong";
}

TEST(ShortConvDevice, TheSameOnADeviceWhereCopiesAreQueued) {
  const nn::Transformer model = tiny_lfm2(DType::bf16, {DeviceKind::simt});
  auto requests = requests_that_begin_alike();
  for (Request& request : requests) request.max_tokens = 4;
  const auto expected = lfm2_alone(model, requests);
  EngineOptions options;
  options.kv_cache_tokens = 8 * 16;
  Engine engine(model, options);
  for (int round = 0; round < 2; ++round) {
    for (const Request& request : requests) engine.add(request);
    expect_same(completions_of(answers_of(engine)), expected);
  }
  EXPECT_GT(engine.stats().prefix_cache_hits, 0);
}

}  // namespace
}  // namespace lathe::engine
