// The engine: batches, chunks and preemption never change a request's tokens.
#include "serve/engine/engine.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "core/random.h"
#include "core/thread_pool.h"
#include "tests/serve/tiny_engine.h"

namespace lathe::engine {
namespace {

std::vector<Request> some_requests() {
  std::vector<Request> requests;
  RandomStream random(3, RandomPurpose::test);
  for (const size_t length : {1u, 15u, 16u, 17u, 70u, 3u, 33u}) {
    Request request;
    for (size_t i = 0; i < length; ++i) request.prompt.push_back(static_cast<int32_t>(random.below(320)));
    request.max_tokens = static_cast<int64_t>(5 + random.below(20));
    request.sampling.temperature = requests.size() % 2 == 0 ? 0.0f : 0.8f;
    request.sampling.top_k = 40;
    request.sampling.repetition_penalty = requests.size() % 3 == 0 ? 1.0f : 1.2f;
    request.sampling.seed = 100 + requests.size();
    requests.push_back(request);
  }
  return requests;
}

std::vector<Completion> one_by_one(const nn::Transformer& model, const std::vector<Request>& requests) {
  std::vector<Completion> alone;
  for (const Request& request : requests) alone.push_back(generate(model, {request})[0]);
  return alone;
}

class EngineBits : public testing::TestWithParam<DType> {};

TEST_P(EngineBits, ARequestAloneAndInABatchAreTheSame) {
  const nn::Transformer model = tiny_model(GetParam());
  const auto requests = some_requests();
  const auto alone = one_by_one(model, requests);
  expect_same(generate(model, requests), alone);
  EngineOptions two_at_a_time;
  two_at_a_time.max_sequences = 2;
  expect_same(generate(model, requests, two_at_a_time), alone);
}

TEST_P(EngineBits, ChunkedPrefillIsTheSame) {
  const nn::Transformer model = tiny_model(GetParam());
  const auto requests = some_requests();
  const auto alone = one_by_one(model, requests);
  for (const int64_t tokens : {1, 7, 16, 50}) {
    EngineOptions options;
    options.max_tokens_per_step = tokens;
    expect_same(generate(model, requests, options), alone);
  }
}

TEST_P(EngineBits, PreemptionIsTheSame) {
  const nn::Transformer model = tiny_model(GetParam());
  const auto requests = some_requests();
  const auto alone = one_by_one(model, requests);
  EngineOptions little_memory;
  little_memory.kv_cache_tokens = 112;  // the longest request takes 96
  expect_same(generate(model, requests, little_memory), alone);
}

TEST_P(EngineBits, ThreadsAreTheSame) {
  const nn::Transformer model = tiny_model(GetParam());
  const auto requests = some_requests();
  set_thread_count(1);
  const auto expected = generate(model, requests);
  for (const int threads : {2, 3}) {
    set_thread_count(threads);
    expect_same(generate(model, requests), expected);
  }
}

INSTANTIATE_TEST_SUITE_P(Dtypes, EngineBits, testing::Values(DType::f32, DType::bf16),
                         [](const auto& info) { return std::string(name_of(info.param)); });

TEST(Engine, ACacheOfAnyDtypeAnswersTheSameAloneInBatchesAndInChunks) {
  const nn::Transformer model = tiny_model(DType::f32);
  const auto requests = some_requests();
  for (const DType dtype : {DType::bf16, DType::f16, DType::i8}) {
    EngineOptions options;
    options.kv_cache_dtype = dtype;
    std::vector<Completion> alone;
    for (const Request& request : requests) alone.push_back(generate(model, {request}, options)[0]);
    options.max_tokens_per_step = 7;
    options.kv_cache_tokens = 112;
    expect_same(generate(model, requests, options), alone);
    // The first token after a prompt of one reads one rounded key and value: its probability hardly moves.
    const float exact = generate(model, {requests[0]})[0].logprobs[0];
    EXPECT_NEAR(alone[0].logprobs[0], exact, 0.05f) << name_of(dtype);
    EXPECT_NE(alone[4].logprobs, generate(model, {requests[4]})[0].logprobs) << name_of(dtype) << " rounds nothing";
  }
}

TEST(Engine, WeightsInCodesAnswerTheSameAloneInBatchesAndInChunks) {
  const auto requests = some_requests();
  const auto dense = generate(tiny_model(DType::f32), {requests[4]})[0];
  for (const auto format : {kernels::QuantizedFormat::nf4, kernels::QuantizedFormat::int8}) {
    const nn::Transformer model = tiny_model(DType::f32, {}, 0, nn::Quantization{.format = format});
    const auto alone = one_by_one(model, requests);
    EngineOptions options;
    options.max_tokens_per_step = 7;
    options.kv_cache_tokens = 112;
    options.kv_cache_dtype = DType::i8;
    std::vector<Completion> alone_over_int8;
    for (const Request& request : requests) alone_over_int8.push_back(generate(model, {request}, options)[0]);
    expect_same(generate(model, requests, options), alone_over_int8);
    options.kv_cache_dtype = DType::f32;
    expect_same(generate(model, requests, options), alone);
    EXPECT_NE(alone[4].logprobs, dense.logprobs) << "nothing was quantised";
  }
}

TEST(Engine, AStopTokenEndsTheAnswerAndIsNoPartOfIt) {
  const nn::Transformer model = tiny_model(DType::f32);
  Request request;
  request.prompt = {1, 2, 3};
  request.max_tokens = 10;
  request.sampling.temperature = 0;
  const Completion whole = generate(model, {request})[0];
  EXPECT_EQ(whole.finish_reason, FinishReason::length);
  ASSERT_EQ(whole.tokens.size(), 10u);
  request.stop_token_ids = {whole.tokens[4]};
  const Completion stopped = generate(model, {request})[0];
  EXPECT_EQ(stopped.finish_reason, FinishReason::stop);
  const auto first = std::find(whole.tokens.begin(), whole.tokens.end(), whole.tokens[4]);
  EXPECT_EQ(stopped.tokens, std::vector<int32_t>(whole.tokens.begin(), first));
}

TEST(Engine, ATopKOfMinusOneIsOffAsZeroIs) {
  const nn::Transformer model = tiny_model(DType::f32);
  std::vector<Request> requests = some_requests();
  for (Request& request : requests) {
    request.sampling.temperature = 1.0f;
    request.sampling.top_k = 0;
  }
  const auto every_token = generate(model, requests);
  for (Request& request : requests) request.sampling.top_k = -1;
  expect_same(generate(model, requests), every_token);
}

TEST(Engine, WhatCannotBeAnsweredIsRefusedAtOnce) {
  const nn::Transformer model = tiny_model(DType::f32);
  Engine engine(model, {});
  const auto refused = [&](const std::function<void(Request&)>& change) {
    Request request;
    request.prompt = {1, 2, 3};
    change(request);
    EXPECT_THROW(engine.add(request), Error);
  };
  refused([](Request& r) { r.prompt.clear(); });
  refused([](Request& r) { r.prompt[1] = 320; });
  refused([](Request& r) { r.prompt[1] = -1; });
  refused([](Request& r) { r.max_tokens = 0; });
  refused([](Request& r) { r.max_tokens = int64_t{1} << 40; });
  refused([](Request& r) { r.sampling.temperature = -1; });
  refused([](Request& r) { r.sampling.top_p = 0; });
  refused([](Request& r) { r.sampling.top_k = -2; });
  refused([](Request& r) { r.sampling.min_p = 2; });
  refused([](Request& r) { r.sampling.repetition_penalty = 0; });
  EXPECT_TRUE(engine.idle());
  EngineOptions small;
  small.kv_cache_tokens = 32;
  Engine small_engine(model, small);
  Request request;
  request.prompt.assign(30, 1);
  request.max_tokens = 10;
  EXPECT_THROW(small_engine.add(request), ResourceError);
}

}  // namespace
}  // namespace lathe::engine
