// Guessing what a text that repeats itself goes on with: the same bits as without, fewer steps, and an end to it where
// it does not pay.
#include "serve/engine/prompt_lookup.h"

#include <gtest/gtest.h>

#include "tests/serve/tiny_engine.h"

namespace lathe::engine {
namespace {

using Ids = std::vector<int32_t>;

TEST(PromptLookup, WhatFollowedTheLatestLongestPlaceIsGuessed) {
  EXPECT_EQ(look_up(Ids{1, 2, 3, 4, 5, 9, 1, 2, 3}, 2), (Ids{4, 5}));
  EXPECT_EQ(look_up(Ids{1, 2, 3, 4, 1, 2, 3, 5, 1, 2, 3}, 1), (Ids{5})) << "the latest";
  EXPECT_EQ(look_up(Ids{1, 2, 3, 4, 8, 2, 3, 5, 1, 2, 3}, 1), (Ids{4})) << "the longest";
  EXPECT_EQ(look_up(Ids{7, 2, 3, 4, 8, 2, 3}, 8), (Ids{4, 8, 2, 3})) << "two are enough";
  EXPECT_EQ(look_up(Ids{5, 5, 5, 5}, 3), (Ids{5}));
  EXPECT_EQ(look_up(Ids{1, 2, 3, 4}, 3), Ids{});
  EXPECT_EQ(look_up(Ids{3}, 3), Ids{});
  EXPECT_EQ(look_up(Ids{1, 2, 3, 1, 2, 3}, 0), Ids{});
}

TEST(PromptLookup, WrongGuessesPauseItForLongerEachTime) {
  GuessingRecord record;
  EXPECT_TRUE(record.pays(0));
  record.add(16, 3, 100);
  EXPECT_FALSE(record.pays(115));
  EXPECT_TRUE(record.pays(116));
  record.add(16, 0, 116);
  EXPECT_FALSE(record.pays(147));
  EXPECT_TRUE(record.pays(148));
  record.add(16, 16, 164);
  EXPECT_TRUE(record.pays(164));
}

// Prompts that repeat themselves, with every setting that decides about a token.
std::vector<Request> requests() {
  std::vector<Request> all;
  for (size_t i = 0; i < 6; ++i) {
    Request request;
    for (size_t t = 0; t < 30 + i; ++t) request.prompt.push_back(static_cast<int32_t>((t % 7) * 11 + i));
    request.max_tokens = 60;
    request.sampling.temperature = i % 2 == 0 ? 0.0f : 0.3f;
    request.sampling.seed = i;
    all.push_back(request);
  }
  all[1].sampling.repetition_penalty = 0.6f;  // what was seen is likelier
  all[2].top_logprobs = 3;
  all[3].sampling.frequency_penalty = -1.0f;
  all[4].logit_bias = {{9, 1.5f}};
  return all;
}

TEST(PromptLookup, TheSameBitsAsWithoutInFewerSteps) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const nn::Transformer model = tiny_model(dtype);
    auto asked = requests();
    // One that ends with a stop token in the middle, and not before min_tokens.
    asked[5].stop_token_ids = {generate(model, {asked[5]})[0].tokens[20]};
    asked[5].min_tokens = 12;
    for (const DType cache : {dtype, DType::i8}) {
      EngineOptions options;
      options.kv_cache_dtype = cache;
      const auto expected = generate(model, asked, options);
      options.num_speculative_tokens = 4;
      for (const int64_t running : {1, 3}) {
        options.max_sequences = running;
        for (const int64_t tokens : {3, 16, 512}) {
          options.max_tokens_per_step = tokens;
          options.kv_cache_tokens = 16 * 16;
          Engine engine(model, options);
          for (const Request& request : asked) engine.add(request);
          expect_same(completions_of(answers_of(engine)), expected);
          EXPECT_GT(engine.stats().accepted_tokens, 0);
          EXPECT_LE(engine.stats().accepted_tokens, engine.stats().draft_tokens);
          expect_all_given_back(engine, 16);
        }
      }
    }
  }
}

TEST(PromptLookup, ManySequencesGuessNothing) {
  const nn::Transformer model = tiny_model(DType::f32);
  EngineOptions options;
  options.num_speculative_tokens = 4;
  Engine engine(model, options);
  for (const Request& request : requests()) engine.add(request);
  for (int i = 0; i < 20; ++i) engine.step();
  EXPECT_EQ(engine.stats().draft_tokens, 0);
}

}  // namespace
}  // namespace lathe::engine
