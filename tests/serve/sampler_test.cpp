// What a request bans, biases and asks to see: bits that depend on nothing else, and log-probabilities of the model's
// own distribution.
#include "serve/engine/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/error.h"
#include "tests/serve/tiny_engine.h"

namespace lathe::engine {
namespace {

Request request_of(int64_t max_tokens, float temperature = 0) {
  Request request;
  for (int32_t i = 0; i < 21; ++i) request.prompt.push_back(i * 31 % 320);
  request.max_tokens = max_tokens;
  request.sampling.temperature = temperature;
  request.sampling.seed = 4;
  return request;
}

std::vector<TokenOutput> outputs_of(const nn::Transformer& model, const std::vector<Request>& requests,
                                    const EngineOptions& options = {}) {
  std::vector<TokenOutput> outputs;
  generate(model, requests, options, [&](const TokenOutput& output) {
    if (output.request == 0) outputs.push_back(output);
  });
  return outputs;
}

void expect_same_outputs(const std::vector<TokenOutput>& found, const std::vector<TokenOutput>& expected) {
  ASSERT_EQ(found.size(), expected.size());
  for (size_t i = 0; i < found.size(); ++i) {
    EXPECT_EQ(found[i].token, expected[i].token);
    EXPECT_EQ(found[i].logprob, expected[i].logprob);
    ASSERT_EQ(found[i].top_logprobs.size(), expected[i].top_logprobs.size());
    for (size_t k = 0; k < found[i].top_logprobs.size(); ++k) {
      EXPECT_EQ(found[i].top_logprobs[k].token, expected[i].top_logprobs[k].token);
      EXPECT_EQ(found[i].top_logprobs[k].logprob, expected[i].top_logprobs[k].logprob);
    }
  }
}

TEST(Sampler, TheLikeliestTokensAreInOrderAndTheDrawnOneIsTheSameBitsAsWithoutThem) {
  const nn::Transformer model = tiny_model(DType::bf16);
  for (const float temperature : {0.0f, 1.0f}) {
    Request request = request_of(8, temperature);
    const auto plain = outputs_of(model, {request});
    request.top_logprobs = 20;
    const auto shown = outputs_of(model, {request});
    ASSERT_EQ(shown.size(), plain.size());
    for (size_t i = 0; i < shown.size(); ++i) {
      EXPECT_EQ(shown[i].token, plain[i].token);
      EXPECT_EQ(shown[i].logprob, plain[i].logprob);
      const auto& top = shown[i].top_logprobs;
      ASSERT_EQ(top.size(), 20u);
      for (size_t k = 1; k < top.size(); ++k)
        EXPECT_TRUE(top[k - 1].logprob > top[k].logprob ||
                    (top[k - 1].logprob == top[k].logprob && top[k - 1].token < top[k].token));
      for (const auto& [token, logprob] : top) EXPECT_TRUE(token != shown[i].token || logprob == shown[i].logprob);
      EXPECT_TRUE(temperature > 0 || top[0].token == shown[i].token);
    }
  }
}

// Against a sum in double of a row made by hand.
TEST(Sampler, LogProbabilitiesAreThoseOfTheWholeRow) {
  const std::vector<float> values{0.5f, 2.0f, -1.0f, 2.0f, 1.25f};
  double sum = 0;
  for (const float value : values) sum += std::exp(static_cast<double>(value));
  const LogitBias bias{2, 50.0f};
  const int32_t banned[] = {3, 7, -1};
  const RowToDraw row{
      .sampling = {.params = {.temperature = 0}}, .logit_bias = {&bias, 1}, .banned = banned, .top_logprobs = 3};
  const DrawnToken drawn = draw(Tensor::of<float>(values, {1, 5}), {&row, 1})[0];
  EXPECT_EQ(drawn.token, 2);
  const auto expected = [&](int32_t token) { return values[static_cast<size_t>(token)] - std::log(sum); };
  EXPECT_NEAR(drawn.logprob, expected(2), 1e-6);  // a few units in the last place of a number around 4
  ASSERT_EQ(drawn.top_logprobs.size(), 3u);
  const int32_t order[] = {1, 3, 4};
  for (size_t k = 0; k < 3; ++k) {
    EXPECT_EQ(drawn.top_logprobs[k].token, order[k]);
    EXPECT_NEAR(drawn.top_logprobs[k].logprob, expected(order[k]), 1e-6);
  }
}

TEST(Sampler, ABiasDecidesAndTheLogProbabilityIsStillTheModels) {
  const nn::Transformer model = tiny_model(DType::f32);
  Request request = request_of(1);
  request.top_logprobs = 8;
  const TokenOutput before = outputs_of(model, {request})[0];
  const TokenLogprob wanted = before.top_logprobs[6];
  request.logit_bias = {{wanted.token, 100.0f}};
  const TokenOutput after = outputs_of(model, {request})[0];
  EXPECT_EQ(after.token, wanted.token);
  EXPECT_EQ(after.logprob, wanted.logprob);
  request.logit_bias = {{before.token, -100.0f}};
  EXPECT_EQ(outputs_of(model, {request})[0].token, before.top_logprobs[1].token);
}

TEST(Sampler, NoStopTokenIsDrawnBeforeMinTokens) {
  const nn::Transformer model = tiny_model(DType::f32);
  Request request = request_of(12);
  request.stop_token_ids = {generate(model, {request})[0].tokens[2]};
  const Completion stopped = generate(model, {request})[0];
  EXPECT_EQ(stopped.finish_reason, FinishReason::stop);
  EXPECT_LE(stopped.tokens.size(), 2u);
  request.min_tokens = 6;
  const Completion longer = generate(model, {request})[0];
  EXPECT_GE(longer.tokens.size(), 6u);
  EXPECT_EQ(std::count(longer.tokens.begin(), longer.tokens.end(), request.stop_token_ids[0]), 0);
}

// The same in a batch, in chunks, where memory is short, and with graphs on a device.
TEST(Sampler, NothingElseInABatchMoves) {
  for (const Device device : {Device{}, Device{DeviceKind::simt}}) {
    const nn::Transformer model = tiny_model(DType::f32, device, 256);
    std::vector<Request> requests(3, request_of(6, 0.8f));
    requests[0].top_logprobs = 5;
    requests[0].logit_bias = {{3, 2.5f}, {100, -4.0f}};
    requests[0].sampling.repetition_penalty = 1.3f;
    requests[0].sampling.top_p = 0.9f;
    requests[0].stop_token_ids = {7};
    requests[0].min_tokens = 3;
    requests[1].prompt[0] = 99;
    requests[2].prompt.resize(40, 5);
    requests[2].sampling.presence_penalty = 0.5f;
    EngineOptions alone;
    alone.device_graphs = 0;
    const auto expected = outputs_of(model, {requests[0]}, alone);
    expect_same_outputs(outputs_of(model, requests), expected);
    EngineOptions tight;
    tight.kv_cache_tokens = 80;
    tight.max_tokens_per_step = 7;
    expect_same_outputs(outputs_of(model, requests, tight), expected);
    requests[0].top_logprobs = 0;
    requests[0].logit_bias.clear();
    expect_same({generate(model, requests)[1], generate(model, requests)[2]},
                {generate(model, {requests[1]})[0], generate(model, {requests[2]})[0]});
  }
}

TEST(Sampler, WhatIsOutOfRangeIsRefusedByName) {
  const nn::Transformer model = tiny_model(DType::f32);
  Engine engine(model);
  const auto refused = [&](const char* key, const std::function<void(Request&)>& change) {
    Request request = request_of(4);
    change(request);
    try {
      engine.add(request);
      ADD_FAILURE() << key << " was taken";
    } catch (const ConfigError& error) {
      EXPECT_EQ(error.key(), key);
    }
  };
  refused("min_tokens", [](Request& r) { r.min_tokens = -1; });
  refused("min_tokens", [](Request& r) { r.min_tokens = 5; });
  refused("top_logprobs", [](Request& r) { r.top_logprobs = 21; });
  refused("top_logprobs", [](Request& r) { r.top_logprobs = -1; });
  refused("logit_bias", [](Request& r) { r.logit_bias = {{320, 1.0f}}; });
  refused("logit_bias", [](Request& r) { r.logit_bias = {{-1, 1.0f}}; });
  refused("logit_bias", [](Request& r) { r.logit_bias = {{1, 1.0f}, {1, 2.0f}}; });
  refused("logit_bias", [](Request& r) { r.logit_bias = {{1, std::numeric_limits<float>::infinity()}}; });
  refused("max_tokens", [](Request& r) { r.max_tokens = std::numeric_limits<int64_t>::max(); });
  refused("adapter", [](Request& r) { r.adapter = "nobody"; });
  EXPECT_TRUE(engine.idle());
}

}  // namespace
}  // namespace lathe::engine
