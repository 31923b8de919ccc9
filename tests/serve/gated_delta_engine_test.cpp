// A model whose layers keep a state of each sequence: it is remembered where others may go on from, copied, given up
// and computed again, and nobody can tell from the answers.
#include <gtest/gtest.h>

#include "core/error.h"
#include "kernels/simt/options.h"
#include "serve/engine/cache_size.h"
#include "tests/serve/alike_requests.h"

namespace lathe::engine {
namespace {

constexpr int64_t delta_page = nn::KvCache::default_page_size;

nn::Transformer tiny_qwen3_5(DType dtype, Device device = {}) {
  return tiny_golden("tiny_qwen3_5/text", dtype, device);
}

std::vector<int32_t> joined(std::vector<int32_t> first, const std::vector<int32_t>& second) {
  first.insert(first.end(), second.begin(), second.end());
  return first;
}

int64_t cached_of(Engine& engine, const std::vector<int32_t>& prompt) {
  engine.add(small_request(prompt, 3, 0.0f));
  return answers_of(engine).begin()->second.cached_tokens;
}

struct StateKind {
  const char* model;
  DType kv_cache_dtype;
};
class GatedDeltaEngine : public testing::TestWithParam<StateKind> {};

TEST_P(GatedDeltaEngine, SharedBeginningsChunksAndHardlyAnyRoomChangeNoBit) {
  const nn::Transformer model = tiny_golden(GetParam().model, DType::f32);
  const auto requests = requests_that_begin_alike();
  EngineOptions options;
  options.kv_cache_dtype = GetParam().kv_cache_dtype;
  const auto expected = each_alone(model, requests, options);
  for (const int64_t pages : {4, 8, 64}) {  // the longest request takes 4
    options.kv_cache_tokens = pages * delta_page;
    for (const int64_t sequences : {1, 3, 64}) {
      options.max_sequences = sequences;
      for (const int64_t tokens : {1, 7, 512}) {
        options.max_tokens_per_step = tokens;
        Engine engine(model, options);
        for (int round = 0; round < 2; ++round) {
          for (const Request& request : requests) engine.add(request);
          expect_same(completions_of(answers_of(engine)), expected);
        }
        EXPECT_TRUE(pages < 64 || engine.stats().prefix_cache_hits > 0);
        expect_all_given_back(engine, pages);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Caches, GatedDeltaEngine,
                         testing::Values(StateKind{"tiny_qwen3_5/text", DType::f32},
                                         StateKind{"tiny_qwen3_5/text", DType::i8},
                                         StateKind{"tiny_granite4/hybrid", DType::f32}),
                         [](const auto& info) {
                           return std::string(info.param.model).substr(5, 4) + "_" +
                                  std::string(name_of(info.param.kv_cache_dtype));
                         });

// Whose routers' choice the host asks for in between.
class GatedDeltaMixture : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Golden, GatedDeltaMixture, testing::Values("tiny_qwen3_5_moe/text", "tiny_qwen3_next/some"));
TEST_P(GatedDeltaMixture, HasTheStatesOfOneWithoutExperts) {
  const nn::Transformer model = tiny_golden(GetParam(), DType::f32);
  const auto requests = requests_that_begin_alike();
  const auto expected = each_alone(model, requests);
  EngineOptions options;
  options.kv_cache_tokens = 8 * delta_page;
  for (const int64_t tokens : {7, 512}) {
    options.max_tokens_per_step = tokens;
    Engine engine(model, options);
    for (int round = 0; round < 2; ++round) {
      for (const Request& request : requests) engine.add(request);
      expect_same(completions_of(answers_of(engine)), expected);
    }
    expect_all_given_back(engine, 8);
  }
}

TEST(GatedDeltaStates, AsManyAsTheMemoryHoldsAndNoMoreSequencesRun) {
  const nn::Transformer model = tiny_qwen3_5(DType::f32);
  const auto requests = requests_that_begin_alike();
  const auto expected = each_alone(model, requests);
  const int64_t state = nn::KvCache::bytes_per_state(model.config(), DType::f32),
                page = nn::KvCache::bytes_per_page(model.config(), DType::f32);
  for (const int64_t states : {1, 2, 3}) {
    EngineOptions options;
    options.kv_cache_memory = 2 * states * state + 8 * page;
    const CacheSize size = cache_size_of(model.config(), DType::f32, 128, *options.kv_cache_memory);
    EXPECT_GE(size.states, states);
    EXPECT_LE(size.states * state + size.pages * page, *options.kv_cache_memory);
    Engine engine(model, options);
    for (const Request& request : requests) engine.add(request);
    expect_same(completions_of(answers_of(engine)), expected);
  }
  EngineOptions too_little;
  too_little.kv_cache_memory = state + page - 1;
  EXPECT_THROW(Engine(model, too_little), ConfigError);
}

TEST(GatedDeltaStates, APromptThatManyAskTogetherIsComputedOnceUpToItsLastWholePage) {
  const nn::Transformer model = tiny_qwen3_5(DType::f32);
  RandomStream random(5, RandomPurpose::test);
  const std::vector<int32_t> prompt = small_tokens(random, 42);
  std::vector<Request> group;
  for (uint64_t i = 0; i < 6; ++i) {
    group.push_back(small_request(prompt, 10, 1.0f));
    group.back().sampling.seed = i;
  }
  const auto expected = each_alone(model, group);
  EXPECT_NE(expected[0].tokens, expected[1].tokens) << "seeds differ";
  Engine engine(model);
  for (const Request& request : group) engine.add(request);
  const Answers answers = answers_of(engine);
  expect_same(completions_of(answers), expected);
  for (const auto& [id, answer] : answers) EXPECT_EQ(answer.cached_tokens, id == 1 ? 0 : 32);
}

TEST(GatedDeltaStates, AConversationGoesOnFromTheLastWholePageOfWhatWasAsked) {
  const nn::Transformer model = tiny_qwen3_5(DType::f32);
  RandomStream random(6, RandomPurpose::test);
  Engine engine(model);
  const std::vector<int32_t> asked = small_tokens(random, 70);
  engine.add(small_request(asked, 20, 0.0f));
  const std::vector<int32_t> answer = answers_of(engine).begin()->second.completion.tokens;
  EXPECT_EQ(cached_of(engine, joined(joined(asked, answer), small_tokens(random, 9))), 64);
}

TEST(GatedDeltaStates, WherePromptsPartThereIsAStateForTheThird) {
  const nn::Transformer model = tiny_qwen3_5(DType::f32);
  RandomStream random(7, RandomPurpose::test);
  const std::vector<int32_t> shared = small_tokens(random, 50);
  const auto ask = [&](Engine& engine) { return cached_of(engine, joined(shared, small_tokens(random, 40))); };
  Engine engine(model);
  EXPECT_EQ(ask(engine), 0);
  EXPECT_EQ(ask(engine), 0) << "the first one's is of its end";
  EXPECT_EQ(ask(engine), 48);
  engine.forget_prefixes();
  EXPECT_EQ(ask(engine), 0);
}

TEST(GatedDeltaStates, PrefixesThatAreForgottenHalfwayHoldNobodyUp) {
  const nn::Transformer model = tiny_qwen3_5(DType::f32);
  const auto requests = requests_that_begin_alike();
  const auto expected = each_alone(model, requests);
  EngineOptions options;
  options.max_tokens_per_step = 9;
  Engine engine(model, options);
  for (const Request& request : requests) engine.add(request);
  Answers answers;
  for (int steps = 0; !engine.idle(); ++steps) {
    if (steps % 3 == 1) engine.forget_prefixes();
    step_into(answers, engine);
  }
  expect_same(completions_of(answers), expected);
}

TEST(GatedDeltaStates, NothingIsGuessedSinceNothingCanBeTakenBack) {
  const nn::Transformer model = tiny_qwen3_5(DType::f32);
  std::vector<int32_t> prompt;
  for (int32_t t = 0; t < 30; ++t) prompt.push_back(t % 3);
  const std::vector<Request> requests = {small_request(prompt, 40, 0.0f)};
  EngineOptions options;
  options.num_speculative_tokens = 4;
  Engine engine(model, options);
  engine.add(requests[0]);
  expect_same(completions_of(answers_of(engine)), each_alone(model, requests));
  EXPECT_EQ(engine.stats().draft_tokens, 0);
}

TEST(GatedDeltaDevice, AStepThatFailsHalfwayLeavesNoStateBehind) {
  const nn::Transformer model = tiny_qwen3_5(DType::bf16, {DeviceKind::simt});
  auto requests = requests_that_begin_alike();
  requests.resize(3);
  for (Request& request : requests) request.max_tokens = 5;
  const auto expected = each_alone(model, requests);
  for (const int64_t graphs : {int64_t{0}, int64_t{32}}) {
    EngineOptions options;
    options.device_graphs = graphs;
    Engine engine(model, options);
    for (const Request& request : requests) engine.add(request);
    Answers answers;
    int failures = 0;
    for (int64_t steps = 0; !engine.idle(); ++steps) {
      // A graph is one launch, so that the others are of what comes before and after it.
      if (steps % 2 == 1) simt::fail_nth(simt::Call::launch, graphs == 0 ? 20 + 7 * steps : 1);
      try {
        step_into(answers, engine);
      } catch (const Error&) {
        ++failures;
      }
      simt::fail_nth(simt::Call::launch, 0);
    }
    expect_same(completions_of(answers), expected);
    EXPECT_GE(failures, 2);
  }
}

TEST(GatedDeltaDevice, TheSameOnADeviceWhereCopiesAreQueuedAndStepsAreGraphs) {
  const nn::Transformer model = tiny_qwen3_5(DType::bf16, {DeviceKind::simt});
  auto requests = requests_that_begin_alike();
  for (Request& request : requests) request.max_tokens = 4;
  const auto expected = each_alone(model, requests);
  EngineOptions options;
  options.kv_cache_tokens = 8 * delta_page;
  Engine engine(model, options);
  expect_two_rounds(engine, requests, expected);
  EXPECT_GT(engine.graph_counts().replayed, 0);
}

}  // namespace
}  // namespace lathe::engine
