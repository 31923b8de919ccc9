// Keys and values that were computed once are not computed again, and nobody can tell from the answers.
#include <gtest/gtest.h>

#include "core/error.h"
#include "core/random.h"
#include "core/thread_pool.h"
#include "kernels/simt/options.h"
#include "tests/serve/tiny_engine.h"

namespace lathe::engine {
namespace {

std::vector<int32_t> random_tokens(RandomStream& random, int64_t count) {
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < count; ++i) tokens.push_back(static_cast<int32_t>(random.below(320)));
  return tokens;
}

// Prompts that share beginnings of 0 to 90 tokens, some of them whole.
std::vector<Request> requests_with_shared_beginnings() {
  RandomStream random(11, RandomPurpose::test);
  const std::vector<int32_t> base = random_tokens(random, 90);
  std::vector<Request> requests;
  for (const auto& [shared, own] : {std::pair{90, 0}, {64, 9}, {90, 0}, {15, 30}, {33, 1}, {89, 1}, {0, 20}, {64, 9}}) {
    Request request;
    request.prompt.assign(base.begin(), base.begin() + shared);
    for (const int32_t token : random_tokens(random, own)) request.prompt.push_back(token);
    request.max_tokens = 6 + static_cast<int64_t>(random.below(16));
    request.sampling.temperature = requests.size() % 2 == 0 ? 0.9f : 0.0f;
    request.sampling.seed = requests.size();
    requests.push_back(request);
  }
  return requests;
}

std::vector<Completion> without_reuse(const nn::Transformer& model, const std::vector<Request>& requests,
                                      EngineOptions options = {}) {
  options.enable_prefix_caching = false;
  std::vector<Completion> alone;
  for (const Request& request : requests) {
    Engine engine(model, options);
    engine.add(request);
    Answers answers = answers_of(engine);
    EXPECT_EQ(answers.begin()->second.cached_tokens, 0);
    alone.push_back(answers.begin()->second.completion);
  }
  return alone;
}

constexpr int64_t pages_of_all = 64;
EngineOptions options_with(DType kv_cache_dtype, int64_t pages = pages_of_all) {
  EngineOptions options;
  options.kv_cache_tokens = pages * nn::KvCache::default_page_size;
  options.kv_cache_dtype = kv_cache_dtype;
  return options;
}

class PrefixReuse : public testing::TestWithParam<DType> {};  // of the cache

// All at once, then all again one by one: hits on running sequences' pages, on finished ones', copies of half a page.
TEST_P(PrefixReuse, AnswersAreTheSameBitsForAnyChunkAnyThreadsAndAnyBatch) {
  const nn::Transformer model = tiny_model(DType::f32);
  const auto requests = requests_with_shared_beginnings();
  EngineOptions options = options_with(GetParam());
  const auto expected = without_reuse(model, requests, options);
  for (const int threads : {1, 2}) {
    set_thread_count(threads);
    for (const int64_t tokens : {1, 7, 40, 512}) {
      options.max_tokens_per_step = tokens;
      Engine engine(model, options);
      for (const Request& request : requests) engine.add(request);
      expect_same(completions_of(answers_of(engine)), expected);
      for (size_t i = 0; i < requests.size(); ++i) {
        engine.add(requests[i]);
        const Answers answers = answers_of(engine);
        expect_same(completions_of(answers), {expected[i]});
        const auto prompt = static_cast<int64_t>(requests[i].prompt.size());
        EXPECT_EQ(answers.begin()->second.cached_tokens, (prompt - 1) / 16 * 16) << "what is full, but the last token";
      }
      expect_all_given_back(engine, pages_of_all);
    }
  }
}

TEST_P(PrefixReuse, AnswersAreTheSameBitsWhereThereIsHardlyRoom) {
  const nn::Transformer model = tiny_model(DType::f32);
  const auto requests = requests_with_shared_beginnings();
  const auto expected = without_reuse(model, requests, options_with(GetParam()));
  for (const int64_t pages : {7, 8, 11}) {  // the longest request takes 7
    const EngineOptions options = options_with(GetParam(), pages);
    Engine engine(model, options);
    for (int round = 0; round < 2; ++round) {
      for (const Request& request : requests) engine.add(request);
      expect_same(completions_of(answers_of(engine)), expected);
    }
    EXPECT_GT(engine.stats().prefix_cache_hits, 0);
    expect_all_given_back(engine, pages);
  }
}

INSTANTIATE_TEST_SUITE_P(Caches, PrefixReuse, testing::Values(DType::f32, DType::i8),
                         [](const auto& info) { return std::string(name_of(info.param)); });

// A group of GRPO, or n of a request.
TEST(PrefixReuse, APromptThatManyAskTogetherIsComputedOnce) {
  const nn::Transformer model = tiny_model(DType::f32);
  RandomStream random(5, RandomPurpose::test);
  std::vector<Request> group;
  for (uint64_t i = 0; i < 6; ++i) {
    Request request;
    request.prompt = i == 0 ? random_tokens(random, 42) : group[0].prompt;
    request.max_tokens = 10;
    request.sampling.seed = i;
    group.push_back(request);
  }
  const auto expected = without_reuse(model, group);
  Engine engine(model);
  for (const Request& request : group) engine.add(request);
  Answers answers = answers_of(engine);
  expect_same(completions_of(answers), expected);
  EXPECT_NE(expected[0].tokens, expected[1].tokens) << "seeds differ";
  for (const auto& [id, answer] : answers)
    EXPECT_EQ(answer.cached_tokens, id == 1 ? 0 : 41) << "two whole pages, and 9 tokens of a copy";
  const EngineStats stats = engine.stats();
  EXPECT_EQ(stats.prefix_cache_queries, 6 * 42);
  EXPECT_EQ(stats.prefix_cache_hits, 5 * 41);
  EXPECT_EQ(stats.prompt_tokens, 6 * 42);
  EXPECT_EQ(stats.generation_tokens, 60);
}

TEST(PrefixReuse, TheSameOnADeviceWhereCopiesAreQueued) {
  const nn::Transformer model = tiny_model(DType::f32, {DeviceKind::simt}, 256);
  auto requests = requests_with_shared_beginnings();
  requests.resize(4);
  for (Request& request : requests) request.max_tokens = 4;
  EngineOptions options;
  options.kv_cache_tokens = 12 * 16;
  const auto expected = without_reuse(model, requests, options);
  Engine engine(model, options);
  for (int round = 0; round < 2; ++round) {
    for (const Request& request : requests) engine.add(request);
    expect_same(completions_of(answers_of(engine)), expected);
  }
  EXPECT_GT(engine.stats().prefix_cache_hits, 0);
}

TEST(PrefixReuse, AfterACopyThatFailedTheSequenceWaitsAndStartsAgain) {
  const nn::Transformer model = tiny_model(DType::f32, {DeviceKind::simt}, 256);
  RandomStream random(8, RandomPurpose::test);
  Request request;
  request.prompt = random_tokens(random, 26);
  request.max_tokens = 3;
  const auto expected = without_reuse(model, {request, request});
  Engine engine(model);
  engine.add(request);
  engine.add(request);
  Answers answers;
  step_into(answers, engine);
  simt::fail_nth(simt::Call::launch, 1);
  EXPECT_THROW(engine.step(), Error);
  simt::fail_nth(simt::Call::launch, 0);
  EXPECT_EQ(engine.stats().requests_waiting, 1);
  while (!engine.idle()) step_into(answers, engine);
  expect_same(completions_of(answers), expected);
  expect_all_given_back(engine, 1024);
}

TEST(PrefixReuse, ASaltAndForgettingKeepOthersOut) {
  const nn::Transformer model = tiny_model(DType::f32);
  Engine engine(model);
  Request request;
  RandomStream random(6, RandomPurpose::test);
  request.prompt = random_tokens(random, 50);
  request.max_tokens = 2;
  const auto cached = [&] {
    engine.add(request);
    return answers_of(engine).begin()->second.cached_tokens;
  };
  EXPECT_EQ(cached(), 0);
  EXPECT_EQ(cached(), 48);
  request.cache_salt = "another tenant";
  EXPECT_EQ(cached(), 0);
  EXPECT_EQ(cached(), 48);
  engine.forget_prefixes();
  EXPECT_EQ(engine.stats().pages_cached, 0);
  EXPECT_EQ(cached(), 0);
}

// Weights change in place while a request runs: what it has computed is out of date, and what it goes on to.
TEST(PrefixReuse, NothingOfARequestThatRanWhileWeightsChangedIsFound) {
  const nn::Transformer model = tiny_model(DType::f32);
  Engine engine(model);
  Request request;
  RandomStream random(7, RandomPurpose::test);
  request.prompt = random_tokens(random, 50);
  request.max_tokens = 30;
  engine.add(request);
  engine.step();
  engine.forget_prefixes();
  while (!engine.idle()) engine.step();
  EXPECT_EQ(engine.stats().pages_cached, 0);
  engine.add(request);
  EXPECT_EQ(answers_of(engine).begin()->second.cached_tokens, 0);
}

}  // namespace
}  // namespace lathe::engine
