// The real model: transformers' greedy tokens and losses, and one order for every sum.
#include <gtest/gtest.h>

#include <fstream>

#include "autograd/ops/linear_cross_entropy.h"
#include "autograd/recording.h"
#include "core/json_value.h"
#include "core/thread_pool.h"
#include "kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "nn/attention_context.h"
#include "nn/model_files.h"
#include "serve/engine/engine.h"
#include "tests/support/source_dir.h"
#include "tests/support/test_model.h"

namespace lathe::engine {
namespace {

using Ids = std::vector<int32_t>;

nlohmann::json golden_json(const std::string& name) {
  return nlohmann::json::parse(std::ifstream(std::filesystem::path(source_dir) / "tests/golden/smollm2" / name));
}

nn::Transformer load(DType dtype, nn::StoredBlockUse stored_blocks = nn::StoredBlockUse::widen) {
  const nn::ModelFiles files = nn::open_model_files(lathe::testing::test_model());
  return nn::Transformer(files.config, *files.weights,
                         {.dtype = dtype, .max_positions = 1024, .stored_blocks = stored_blocks});
}

// −loss of each token given those before it, by the path that training takes: sequences packed end to end. The first
// token of each has none.
std::vector<std::vector<float>> training_logprobs(const nn::Transformer& model, const std::vector<Ids>& sequences) {
  const autograd::NoGradScope no_grad;
  Ids ids, labels, lengths;
  for (const Ids& sequence : sequences) {
    ids.insert(ids.end(), sequence.begin(), sequence.end());
    labels.insert(labels.end(), sequence.begin() + 1, sequence.end());
    labels.push_back(kernels::ignored_label);
    lengths.push_back(static_cast<int32_t>(sequence.size()));
  }
  const nn::TokenBatch batch = nn::make_token_batch(ids, lengths);
  nn::PackedAttention attention(model.config(), batch.layout);
  const auto result = autograd::linear_cross_entropy(model.forward(batch, attention), model.output_weight(),
                                                     Tensor::of<int32_t>(labels, {static_cast<int64_t>(labels.size())}),
                                                     batch.layout, 1.0f);
  const float* loss = result.token_loss.data<float>();
  std::vector<std::vector<float>> logprobs;
  for (const Ids& sequence : sequences) {
    logprobs.emplace_back();
    for (size_t i = 0; i + 1 < sequence.size(); ++i) logprobs.back().push_back(-loss[i]);
    loss += sequence.size();
  }
  return logprobs;
}

// The same by the path that generation takes for prompts: one prefill into pages, then the logits of every position.
std::vector<float> prefill_logprobs(const nn::Transformer& model, const Ids& sequence) {
  const autograd::NoGradScope no_grad;
  const auto length = static_cast<int32_t>(sequence.size());
  const int64_t pages = (length + 15) / 16;
  nn::KvCache cache(model.config(), model.dtype(), pages);
  Ids block_table(static_cast<size_t>(pages));
  for (int64_t i = 0; i < pages; ++i)
    block_table[static_cast<size_t>(i)] = static_cast<int32_t>(pages - 1 - i);  // any order
  const nn::TokenBatch batch = nn::make_token_batch(sequence, std::span(&length, 1));
  nn::PagedAttention attention(model.config(), cache,
                               {batch.layout.cu_seqlens, Tensor::of<int32_t>(std::span(&length, 1), {1}),
                                Tensor::of<int32_t>(block_table, {1, pages}), cache.shape()});
  const Tensor logits = model.logits(model.forward(batch, attention).value());
  Ids targets(sequence.begin() + 1, sequence.end());
  targets.push_back(0);
  const Tensor logprobs = Tensor::empty({length}, DType::f32);
  kernels::token_logprobs(logprobs, logits, Tensor::of<int32_t>(targets, {length}));
  return {logprobs.data<float>(), logprobs.data<float>() + length - 1};
}

std::vector<Completion> greedy(const nn::Transformer& model, const std::vector<Ids>& prompts, int64_t tokens) {
  std::vector<Request> requests;
  for (const Ids& prompt : prompts) {
    requests.push_back({prompt, {}, tokens, {}});
    requests.back().sampling.temperature = 0;
  }
  return generate(model, requests);
}

TEST(SmolLm2, GreedyTokensAreThoseOfTransformers) {
  const nn::Transformer model = load(DType::f32);
  const nlohmann::json rows = golden_json("greedy.json");
  std::vector<Ids> prompts;
  for (const auto& row : rows) prompts.push_back(row["prompt_ids"].get<Ids>());
  ASSERT_EQ(prompts.size(), 20u);
  const auto completions = greedy(model, prompts, 64);
  for (size_t i = 0; i < prompts.size(); ++i)
    EXPECT_EQ(completions[i].tokens, rows[i]["tokens"].get<Ids>()) << "prompt " << i;
}

TEST(SmolLm2, LossesAreThoseOfTransformers) {
  const nn::Transformer model = load(DType::f32);
  const nlohmann::json rows = golden_json("loss.json");
  ASSERT_EQ(rows.size(), 50u);
  std::vector<Ids> texts;
  for (const auto& row : rows) texts.push_back(row["ids"].get<Ids>());
  const auto logprobs = training_logprobs(model, texts);
  for (size_t i = 0; i < texts.size(); ++i) {
    double sum = 0;
    for (const float logprob : logprobs[i]) sum -= logprob;
    EXPECT_NEAR(sum / static_cast<double>(logprobs[i].size()), rows[i]["mean_nll"].get<double>(), 1e-4) << "text " << i;
  }
}

// The file's Q4_1 and Q8_0 blocks multiplied as they are: half a per cent of perplexity would be 0.005.
TEST(SmolLm2, LossesWithTheFilesBlocksAreWithinHalfAPercentOfPerplexity) {
  const nn::Transformer model = load(DType::f32, nn::StoredBlockUse::keep);
  std::vector<Ids> texts;
  double expected = 0, sum = 0, tokens = 0;
  for (const auto& row : golden_json("loss.json")) {
    texts.push_back(row["ids"].get<Ids>());
    expected += row["mean_nll"].get<double>() * static_cast<double>(texts.back().size() - 1);
  }
  for (const auto& logprobs : training_logprobs(model, texts)) {
    for (const float logprob : logprobs) sum -= logprob;
    tokens += static_cast<double>(logprobs.size());
  }
  EXPECT_NEAR(sum / tokens, expected / tokens, 0.005);
}

class OneOrder : public ::testing::TestWithParam<std::pair<DType, nn::StoredBlockUse>> {};

// 200 tokens generated one by one, in a batch with others; then scored in one prefill and in packed training forwards,
// alone and beside others, with one thread and two: the same bits.
TEST_P(OneOrder, TwoHundredTokensHaveTheSameLogProbabilitiesEverywhere) {
  const nn::Transformer model = load(GetParam().first, GetParam().second);
  const nlohmann::json rows = golden_json("greedy.json");
  const std::vector<Ids> prompts = {rows[0]["prompt_ids"].get<Ids>(), rows[1]["prompt_ids"].get<Ids>(),
                                    rows[2]["prompt_ids"].get<Ids>()};
  set_thread_count(2);
  const Completion alone = greedy(model, {prompts[0]}, 200)[0];
  ASSERT_EQ(alone.tokens.size(), 200u);
  Ids sequence = prompts[0];
  sequence.insert(sequence.end(), alone.tokens.begin(), alone.tokens.end());
  const auto generated_part = [&](const std::vector<float>& all) {
    return std::vector<float>(all.end() - static_cast<std::ptrdiff_t>(alone.tokens.size()), all.end());
  };
  for (const int threads : {1, 2}) {
    set_thread_count(threads);
    EXPECT_EQ(generated_part(prefill_logprobs(model, sequence)), alone.logprobs) << "one prefill, threads " << threads;
    EXPECT_EQ(generated_part(training_logprobs(model, {sequence})[0]), alone.logprobs)
        << "training forward, threads " << threads;
    EXPECT_EQ(generated_part(training_logprobs(model, {prompts[1], sequence, prompts[2]})[1]), alone.logprobs)
        << "packed training forward, threads " << threads;
  }
  set_thread_count(1);
  EXPECT_EQ(greedy(model, {prompts[1], prompts[0], prompts[2]}, 200)[1].logprobs, alone.logprobs)
      << "in a batch, one thread";
}

INSTANTIATE_TEST_SUITE_P(Dtypes, OneOrder,
                         ::testing::Values(std::pair(DType::f32, nn::StoredBlockUse::widen),
                                           std::pair(DType::bf16, nn::StoredBlockUse::widen),
                                           std::pair(DType::bf16, nn::StoredBlockUse::keep)),
                         [](const auto& info) {
                           return std::string(name_of(info.param.first)) +
                                  (info.param.second == nn::StoredBlockUse::keep ? "_file" : "");
                         });

}  // namespace
}  // namespace lathe::engine
