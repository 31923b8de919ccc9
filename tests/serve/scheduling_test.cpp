// Who runs when, and on what: priorities, prompts beside decoding, cancellation, memory, adapters.
#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"
#include "serve/engine/cache_size.h"
#include "tests/serve/tiny_engine.h"

namespace lathe::engine {
namespace {

Request request_of(size_t prompt, int64_t max_tokens, int32_t first = 1) {
  Request request;
  for (size_t i = 0; i < prompt; ++i) request.prompt.push_back((first + static_cast<int32_t>(i) * 37) % 320);
  request.max_tokens = max_tokens;
  request.sampling.temperature = 0.7f;
  request.sampling.seed = static_cast<uint64_t>(first);
  return request;
}

constexpr int64_t pages = 32;
EngineOptions some_pages() {
  EngineOptions options;
  options.kv_cache_tokens = pages * nn::KvCache::default_page_size;
  return options;
}

TEST(Scheduling, APromptDoesNotHoldUpWhoDecodes) {
  const nn::Transformer model = tiny_model(DType::f32);
  EngineOptions options = some_pages();
  options.max_tokens_per_step = 8;
  for (const int32_t priority : {1, 0, -1}) {  // of the prompt, even where it comes first
    Engine engine(model, options);
    Answers answers;
    const RequestId decoding = engine.add(request_of(5, 12));
    step_into(answers, engine);
    Request prompt = request_of(100, 2, 3);
    prompt.priority = priority;
    engine.add(prompt);
    while (!answers[decoding].ended) {
      const size_t before = answers[decoding].completion.tokens.size();
      step_into(answers, engine);
      EXPECT_EQ(answers[decoding].completion.tokens.size(), before + 1);
    }
    int64_t more_steps = 0;
    for (; !engine.idle(); ++more_steps) step_into(answers, engine);
    EXPECT_EQ(more_steps, (100 - 11 * 7 + 7) / 8 + 1) << "seven tokens of it went beside each decoded one";
  }
}

TEST(Scheduling, ALowerPriorityNumberRunsFirstAndTakesThePlaceOfAHigherOne) {
  const nn::Transformer model = tiny_model(DType::f32);
  EngineOptions options = some_pages();
  options.max_sequences = 1;
  std::vector<Request> requests{request_of(20, 10, 1), request_of(20, 10, 2), request_of(20, 10, 3)};
  requests[0].priority = 5;
  requests[1].priority = 5;
  requests[2].priority = 1;
  const auto expected = generate(model, requests);
  Engine engine(model, options);
  Answers answers;
  std::vector<RequestId> order;
  engine.add(requests[0]);
  for (int i = 0; i < 4; ++i) step_into(answers, engine);
  engine.add(requests[1]);
  engine.add(requests[2]);
  while (!engine.idle()) {
    step_into(answers, engine);
    for (const auto& [id, answer] : answers)
      if (answer.ended && std::find(order.begin(), order.end(), id) == order.end()) order.push_back(id);
  }
  EXPECT_EQ(order, (std::vector<RequestId>{3, 1, 2}));
  EXPECT_EQ(engine.stats().preemptions, 1);
  expect_same(completions_of(answers), expected);
}

TEST(Scheduling, ARequestIsCancelledWhereverItStandsAndItsPagesAreFree) {
  const nn::Transformer model = tiny_model(DType::f32);
  EngineOptions options = some_pages();
  options.max_sequences = 2;
  options.max_tokens_per_step = 40;
  options.enable_prefix_caching = false;
  const Request stays = request_of(10, 20, 4);
  const auto expected = generate(model, {stays});
  Engine engine(model, options);
  Answers answers;
  const RequestId first = engine.add(stays);
  step_into(answers, engine);
  const int64_t free = engine.stats().pages_free;
  const RequestId in_prefill = engine.add(request_of(200, 5, 5));
  const RequestId queued = engine.add(request_of(30, 5, 6));
  step_into(answers, engine);
  EXPECT_EQ(engine.stats().requests_running, 2);
  EXPECT_EQ(engine.stats().requests_waiting, 1);
  EXPECT_LT(engine.stats().pages_free, free);
  EXPECT_TRUE(engine.cancel(queued));
  EXPECT_EQ(engine.stats().requests_waiting, 0);
  EXPECT_TRUE(engine.cancel(in_prefill));
  EXPECT_EQ(engine.stats().pages_free, free);
  EXPECT_FALSE(engine.cancel(in_prefill)) << "there is no such request any more";
  const RequestId in_decode = engine.add(request_of(9, 50, 7));
  for (int i = 0; i < 3; ++i) step_into(answers, engine);
  EXPECT_EQ(answers[in_decode].completion.tokens.size(), 3u);
  EXPECT_TRUE(engine.cancel(in_decode));
  while (!engine.idle()) step_into(answers, engine);
  EXPECT_EQ(answers[in_decode].completion.tokens.size(), 3u) << "no output of it follows";
  EXPECT_FALSE(answers.contains(in_prefill) || answers.contains(queued));
  expect_same({answers[first].completion}, expected);
  EXPECT_FALSE(engine.cancel(first));
  EXPECT_FALSE(engine.cancel(99));
  expect_all_given_back(engine, pages);
}

// One waits for the beginning that another computes; when that one is cancelled it computes it itself.
TEST(Scheduling, WhoWaitsForACancelledPromptGoesOn) {
  const nn::Transformer model = tiny_model(DType::f32);
  EngineOptions options = some_pages();
  options.max_tokens_per_step = 16;
  const Request request = request_of(60, 4);
  Engine engine(model, options);
  const RequestId first = engine.add(request);
  engine.add(request);
  Answers answers;
  step_into(answers, engine);
  EXPECT_EQ(engine.stats().requests_waiting, 1);
  engine.cancel(first);
  while (!engine.idle()) step_into(answers, engine);
  expect_same(completions_of(answers), generate(model, {request}));
  EXPECT_EQ(answers.begin()->second.cached_tokens, 16) << "the page that the first one had finished";
}

TEST(Scheduling, ACacheMayBeSizedInBytes) {
  const nn::Transformer model = tiny_model(DType::f32);
  const int64_t page_bytes = nn::KvCache::bytes_per_page(model.config(), DType::i8);
  EngineOptions options;
  options.kv_cache_dtype = DType::i8;
  options.kv_cache_memory = 5 * page_bytes + page_bytes - 1;
  EXPECT_EQ(Engine(model, options).stats().pages_free, 5);
  options.kv_cache_memory = page_bytes - 1;
  EXPECT_THROW(Engine(model, options), ConfigError);
}

TEST(Scheduling, ACacheTakesItsShareOfTheFreeMemory) {
  const nn::Transformer model = tiny_model(DType::f32, {}, 256);
  const int64_t page = nn::KvCache::bytes_per_page(model.config(), DType::f32), contexts = 256 / 16;
  EXPECT_EQ(kv_cache_bytes(model, DType::f32, 8, 4 * 100 * page + 4), 100 * page) << "a quarter, in whole pages";
  EXPECT_EQ(kv_cache_bytes(model, DType::f32, 8, INT64_MAX), 8 * contexts * page) << "no more than can be used";
  EXPECT_EQ(kv_cache_bytes(model, DType::f32, 8, 0), contexts * page) << "one whole context at least";
  EXPECT_LT(kv_cache_bytes(model, DType::i8, 8, INT64_MAX), 8 * contexts * page);
}

// Every weight of it follows from `phase`.
nn::PeftAdapter adapter_of(const nn::ModelConfig& config, float phase) {
  nn::PeftAdapter adapter;
  adapter.config.r = 2;
  adapter.config.target_modules = {"q_proj", "up_proj"};
  nn::Transformer model = tiny_model(DType::f32);
  EXPECT_EQ(model.config().vocab_size, config.vocab_size);
  model.add_lora(adapter.config, 1);
  adapter = model.adapter();
  for (auto& [module, weights] : adapter.modules)
    for (float& value : weights.b.span<float>()) value = 0.3f * std::sin(phase += 1.0f);
  return adapter;
}

class Adapters : public testing::TestWithParam<Device> {
 protected:
  nn::Transformer model = tiny_model(DType::f32, GetParam(), 256);
  void load(const char* name, float phase) { model.load_adapter(adapter_of(model.config(), phase), name); }
  // The same prompt for each, so that a prefix of another adapter would show.
  static std::vector<Request> requests(const std::vector<std::string>& adapters) {
    std::vector<Request> all;
    for (const std::string& adapter : adapters) {
      all.push_back(request_of(35, 5));
      all.back().adapter = adapter;
    }
    return all;
  }
};

TEST_P(Adapters, AMixedBatchAnswersAsEachAlone) {
  load("red", 0);
  load("blue", 10);
  const auto mixed = requests({"red", "", "blue", "red", "blue", ""});
  std::vector<Completion> alone;
  for (const Request& request : mixed) alone.push_back(generate(model, {request})[0]);
  EXPECT_NE(alone[0].logprobs, alone[1].logprobs);
  EXPECT_NE(alone[0].logprobs, alone[2].logprobs);
  Engine engine(model, some_pages());
  for (int round = 0; round < 2; ++round) {
    for (const Request& request : mixed) engine.add(request);
    expect_same(completions_of(answers_of(engine)), alone);
  }
  EXPECT_GT(engine.stats().prefix_cache_hits, 0);
}

TEST_P(Adapters, TheOnlyOneAnswersWhoNamesNone) {
  load("red", 0);
  Request request = request_of(12, 4);
  const Completion unnamed = generate(model, {request})[0];
  request.adapter = "red";
  expect_same(generate(model, {request}), {unnamed});
  request.adapter = "";
  EXPECT_NE(generate(model, {request})[0].logprobs, unnamed.logprobs);
  load("blue", 10);
  request.adapter.reset();
  EXPECT_THROW(generate(model, {request}), ConfigError) << "of two, one must be named";
}

TEST_P(Adapters, ComeAndGoWhileOthersRun) {
  Engine engine(model, some_pages());
  Answers answers;
  const Request base = requests({""})[0];
  engine.add(base);
  step_into(answers, engine);
  load("red", 0);
  const RequestId red = engine.add(requests({"red"})[0]);
  step_into(answers, engine);
  EXPECT_EQ(engine.requests_of_adapter("red"), 1);
  EXPECT_THROW(engine.release_adapter("red"), ConfigError) << "it is in use";
  while (!engine.idle()) step_into(answers, engine);
  const Completion first_red = answers[red].completion;
  engine.release_adapter("red");
  model.remove_adapter("red");
  EXPECT_THROW(engine.add(requests({"red"})[0]), ConfigError);
  load("red", 20);  // another under the old name
  const RequestId second = engine.add(requests({"red"})[0]);
  const RequestId base_again = engine.add(base);
  while (!engine.idle()) step_into(answers, engine);
  EXPECT_EQ(answers[second].cached_tokens, 0);
  EXPECT_EQ(answers[base_again].cached_tokens, 32);
  expect_same({answers[second].completion, answers[base_again].completion},
              {generate(model, requests({"red"}))[0], answers[1].completion});
  EXPECT_NE(answers[second].completion.logprobs, first_red.logprobs);
}

INSTANTIATE_TEST_SUITE_P(Devices, Adapters, testing::Values(Device{}, Device{DeviceKind::simt}),
                         [](const auto& info) { return info.param.kind == DeviceKind::cpu ? "cpu" : "simt"; });

}  // namespace
}  // namespace lathe::engine
