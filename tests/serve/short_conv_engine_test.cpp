// A model whose layers convolve as well as attend: what they keep of a sequence's tokens is shared, copied, given up
// and taken back with its pages, and nobody can tell from the answers.
#include <gtest/gtest.h>

#include "tests/serve/alike_requests.h"

namespace lathe::engine {
namespace {

nn::Transformer tiny_lfm2(DType dtype, Device device = {}) { return tiny_golden("tiny_lfm2/plain", dtype, device); }

class ShortConvEngine : public testing::TestWithParam<DType> {};  // of keys and values

TEST_P(ShortConvEngine, SharedBeginningsChunksAndHardlyAnyRoomChangeNoBit) {
  const nn::Transformer model = tiny_lfm2(DType::f32);
  const auto requests = requests_that_begin_alike();
  EngineOptions options;
  options.kv_cache_dtype = GetParam();
  options.kv_cache_tokens = 64 * 16;
  const auto expected = each_alone(model, requests, options);
  for (const int64_t pages : {5, 8, 64}) {  // the longest request takes 4, and a copy
    options.kv_cache_tokens = pages * 16;
    for (const int64_t tokens : {1, 7, 512}) {
      options.max_tokens_per_step = tokens;
      Engine engine(model, options);
      expect_two_rounds(engine, requests, expected);
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
    requests.push_back(small_request(std::move(prompt), 60, i % 2 == 0 ? 0.0f : 0.3f));
    requests.back().sampling.repetition_penalty = 0.6f;  // what was seen is likelier
  }
  const auto expected = each_alone(model, requests);
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
  const auto expected = each_alone(model, requests);
  EngineOptions options;
  options.kv_cache_tokens = 8 * 16;
  Engine engine(model, options);
  expect_two_rounds(engine, requests, expected);
}

}  // namespace
}  // namespace lathe::engine
