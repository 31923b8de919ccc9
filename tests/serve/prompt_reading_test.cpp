// What is read off a prompt, its log-probabilities and its embedding: the same bits as elsewhere, in chunks of any
// size, whatever is cached, and without holding up who decodes.
#include "core/error.h"
#include "tests/serve/tiny_engine.h"

namespace lathe::engine {
namespace {

std::vector<int32_t> prompt_of(int32_t length) {
  std::vector<int32_t> prompt;
  for (int32_t i = 0; i < length; ++i) prompt.push_back(3 + i * 7 % 300);
  return prompt;
}

Request greedy(std::vector<int32_t> prompt, int64_t max_tokens) {
  Request request;
  request.prompt = std::move(prompt);
  request.sampling.temperature = 0;
  request.max_tokens = max_tokens;
  return request;
}

Request pooled(int32_t length, Pooling pooling) {
  Request request = greedy(prompt_of(length), 0);
  request.pooling = pooling;
  return request;
}

EngineOptions chunks_of(int64_t tokens) {
  EngineOptions options;
  options.kv_cache_tokens = 1024;
  options.max_tokens_per_step = tokens;
  return options;
}

std::vector<TokenOutput> outputs_of(Engine& engine) {
  std::vector<TokenOutput> outputs;
  while (!engine.idle())
    for (TokenOutput& output : engine.step()) outputs.push_back(std::move(output));
  return outputs;
}

TEST(EnginePromptLogprobs, AreTheBitsThatGenerationHadAtAnyChunkSizeAndAfterAPrefixHit) {
  const nn::Transformer model = tiny_model(DType::f32);
  std::vector<int32_t> text = prompt_of(20);
  const Completion generated = generate(model, {greedy(text, 40)})[0];
  text.insert(text.end(), generated.tokens.begin(), generated.tokens.end());
  for (const int64_t chunk : {512, 7, 1}) {
    Engine engine(model, chunks_of(chunk));
    engine.add(greedy(text, 4));  // leaves its pages for whoever begins the same
    outputs_of(engine);
    Request request = greedy(text, 4);
    request.prompt_logprobs = 2;
    engine.add(request);
    const std::vector<TokenOutput> outputs = outputs_of(engine);
    ASSERT_EQ(outputs.size(), 4u);
    EXPECT_EQ(outputs[0].cached_tokens, 0) << "all of the prompt is computed";
    const std::vector<PromptLogprob>& logprobs = outputs[0].prompt_logprobs;
    ASSERT_EQ(logprobs.size(), text.size() - 1);
    for (size_t i = 0; i < logprobs.size(); ++i) {
      EXPECT_EQ(logprobs[i].token, text[i + 1]);
      ASSERT_EQ(logprobs[i].top_logprobs.size(), 2u);
      EXPECT_EQ(logprobs[i].rank == 1, logprobs[i].top_logprobs[0].logprob == logprobs[i].logprob);
      if (i >= 19) {
        EXPECT_EQ(logprobs[i].logprob, generated.logprobs[i - 19]) << "token " << i << " in chunks of " << chunk;
      }
    }
    for (size_t i = 1; i < outputs.size(); ++i) EXPECT_TRUE(outputs[i].prompt_logprobs.empty());
  }
}

TEST(EnginePromptLogprobs, SurviveAPreemption) {
  const nn::Transformer model = tiny_model(DType::f32);
  Request request = greedy(prompt_of(60), 30);
  request.prompt_logprobs = 0;
  const auto alone = [&] {
    Engine engine(model, chunks_of(512));
    engine.add(request);
    return outputs_of(engine);
  }();
  EngineOptions options = chunks_of(16);
  options.kv_cache_tokens = 128;  // for one of the two
  Engine engine(model, options);
  engine.add(greedy(prompt_of(40), 60));
  const RequestId id = engine.add(request);
  std::vector<PromptLogprob> found;
  for (const TokenOutput& output : outputs_of(engine))
    if (output.request == id && output.cached_tokens) found = output.prompt_logprobs;
  EXPECT_GT(engine.stats().preemptions, 0);
  ASSERT_EQ(found.size(), alone[0].prompt_logprobs.size());
  for (size_t i = 0; i < found.size(); ++i) EXPECT_EQ(found[i].logprob, alone[0].prompt_logprobs[i].logprob);
  expect_all_given_back(engine, 8);
}

TEST(Embeddings, AreTheSameBitsInChunksOfAnySize) {
  const nn::Transformer model = tiny_model(DType::f32);
  for (const Pooling pooling : {Pooling::mean, Pooling::last}) {
    std::vector<float> whole;
    for (const int64_t chunk : {512, 7, 1}) {
      Engine engine(model, chunks_of(chunk));
      for (int round = 0; round < 2; ++round) {  // the second time with the first one's pages at hand
        engine.add(pooled(50, pooling));
        const std::vector<TokenOutput> outputs = outputs_of(engine);
        ASSERT_EQ(outputs.size(), 1u);
        EXPECT_EQ(outputs[0].finish_reason, FinishReason::stop);
        ASSERT_EQ(outputs[0].embedding.size(), 64u);
        if (whole.empty()) whole = outputs[0].embedding;
        EXPECT_EQ(outputs[0].embedding, whole) << "chunks of " << chunk << ", round " << round;
      }
      expect_all_given_back(engine, 64);
    }
  }
}

TEST(Embeddings, DoNotHoldUpWhoDecodes) {
  const nn::Transformer model = tiny_model(DType::f32);
  Engine engine(model, chunks_of(16));
  const RequestId decodes = engine.add(greedy(prompt_of(5), 30));
  engine.step();
  const RequestId embeds = engine.add(pooled(200, Pooling::mean));
  bool embedded = false;
  for (int step = 0; !embedded; ++step) {
    ASSERT_LT(step, 20);
    const std::vector<TokenOutput> outputs = engine.step();
    EXPECT_EQ(outputs[0].request, decodes) << "a token in every step";
    embedded = outputs.back().request == embeds;
  }
  engine.add(pooled(10, Pooling::last));
  EXPECT_TRUE(engine.cancel(decodes));
  outputs_of(engine);
  expect_all_given_back(engine, 64);
  EXPECT_THROW(engine.add(pooled(0, Pooling::mean)), ConfigError);
}

}  // namespace
}  // namespace lathe::engine
