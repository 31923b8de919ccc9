// A whole two-layer model: gradients in f64, and the promise that bits depend on nothing but the numbers.
#include "autograd/gradcheck.h"
#include "autograd/recording.h"
#include "core/memory.h"
#include "core/thread_pool.h"
#include "tests/autograd/tiny_llama.h"

namespace lathe::autograd::testing {
namespace {

struct Setting {
  DType dtype;
  Training training;
};

std::string name_of_setting(const ::testing::TestParamInfo<Setting>& info) {
  const char* how = info.param.training == Training::full   ? "full"
                    : info.param.training == Training::lora ? "lora"
                                                            : "lora_with_dropout";
  return std::string(name_of(info.param.dtype)) + "_" + how;
}

// Every leaf's gradient after one batch, or after its parts one by one.
struct Outcome {
  std::vector<Tensor> gradients;
  std::vector<Tensor> losses;
};

Outcome train(const TinyLlama& model, const std::vector<TinyBatch>& batches) {
  Outcome outcome;
  for (const auto& [name, leaf] : model.leaves) leaf.set_grad({});
  for (const TinyBatch& batch : batches) {
    const CrossEntropyResult result = model.result(batch.ids, batch.labels, batch.layout, 0.125);
    outcome.losses.push_back(result.token_loss);
    backward(result.loss);
  }
  for (const auto& [name, leaf] : model.leaves) outcome.gradients.push_back(leaf.grad());
  return outcome;
}

void expect_same_gradients(const TinyLlama& model, const Outcome& a, const Outcome& b) {
  for (size_t i = 0; i < model.leaves.size(); ++i) {
    ASSERT_TRUE(a.gradients[i].defined() && b.gradients[i].defined()) << model.leaves[i].first;
    EXPECT_TRUE(any_nonzero(a.gradients[i])) << model.leaves[i].first;
    EXPECT_TRUE(same_bits(a.gradients[i], b.gradients[i])) << model.leaves[i].first;
  }
}

class Model : public ::testing::TestWithParam<Setting> {
 protected:
  TinyLlama model_{GetParam().dtype, GetParam().training};
  TinyBatch batch_ = TinyBatch::random({5, 1, 7, 3});
};

TEST_P(Model, CheckpointingChangesNoBit) {
  const Outcome kept = train(model_, {batch_});
  model_.checkpointing = Checkpointing::layers;
  const Outcome recomputed = train(model_, {batch_});
  expect_same_gradients(model_, kept, recomputed);
  EXPECT_TRUE(same_bits(kept.losses[0], recomputed.losses[0]));
  model_.checkpointing = Checkpointing::nested;
  expect_same_gradients(model_, kept, train(model_, {batch_}));
}

TEST_P(Model, AccumulatedMicroBatchesAreTheBatch) {
  const Outcome whole = train(model_, {batch_});
  const Outcome parts = train(model_, {batch_.part(0, 1), batch_.part(1, 3), batch_.part(3, 4)});
  expect_same_gradients(model_, whole, parts);
  std::vector<unsigned char> losses;
  for (const Tensor& loss : parts.losses) {
    for (const unsigned char byte : bytes_of(loss)) losses.push_back(byte);
  }
  EXPECT_EQ(losses, bytes_of(whole.losses[0]));  // packed = one by one
}

TEST_P(Model, ThreadsChangeNoBit) {
  const int before = thread_count();
  set_thread_count(1);
  const Outcome one = train(model_, {batch_});
  for (const int threads : {2, 3}) {
    set_thread_count(threads);
    const Outcome several = train(model_, {batch_});
    expect_same_gradients(model_, one, several);
    EXPECT_TRUE(same_bits(one.losses[0], several.losses[0])) << threads << " threads";
  }
  set_thread_count(before);
}

INSTANTIATE_TEST_SUITE_P(All, Model,
                         ::testing::Values(Setting{DType::f32, Training::full}, Setting{DType::f32, Training::lora},
                                           Setting{DType::f32, Training::lora_with_dropout},
                                           Setting{DType::bf16, Training::full}, Setting{DType::bf16, Training::lora},
                                           Setting{DType::bf16, Training::lora_with_dropout},
                                           Setting{DType::f64, Training::lora_with_dropout}),
                         name_of_setting);

class ModelGradient : public ::testing::TestWithParam<Training> {};

TEST_P(ModelGradient, MatchesDifferencesInF64) {
  TinyLlama model(DType::f64, GetParam());
  const TinyBatch batch = TinyBatch::random({4, 1, 3});
  GradcheckOptions options;
  options.elements = 4;  // of each of the model's tensors
  // Thirty operations deep, third derivatives of the loss reach 1e3: step² · 1e3 / 6 is 2e-8.
  const GradcheckResult result = gradcheck(
      [&](std::span<const Variable>) {
        return std::vector<Variable>{model.loss(batch.ids, batch.labels, batch.layout, 0.125)};
      },
      model.leaf_variables(), options);
  EXPECT_TRUE(result.passed) << result.report;
  for (const auto& [name, leaf] : model.leaves) EXPECT_TRUE(leaf.grad().defined() && any_nonzero(leaf.grad())) << name;
}

INSTANTIATE_TEST_SUITE_P(All, ModelGradient,
                         ::testing::Values(Training::full, Training::lora, Training::lora_with_dropout));

// bf16 gradients stay near the f64 model's on the same (bf16) weights: bf16 rounds at 2⁻⁹, some 30 roundings
// deep, errors adding up at random: √30 · 2⁻⁹ ≈ 1e-2 of the gradient's norm, three times that allowed.
TEST(ModelPrecision, Bf16GradientsAreNearF64) {
  TinyLlama low(DType::bf16, Training::full), exact(DType::f64, Training::full);
  for (size_t i = 0; i < low.leaves.size(); ++i)
    kernels::copy(exact.leaves[i].second.value(), low.leaves[i].second.value());
  const TinyBatch batch = TinyBatch::random({5, 7});
  const Outcome a = train(low, {batch}), b = train(exact, {batch});
  for (size_t i = 0; i < low.leaves.size(); ++i) {
    double difference = 0, norm = 0;
    for (size_t j = 0; j < b.gradients[i].span<double>().size(); ++j) {
      const double want = b.gradients[i].span<double>()[j], got = a.gradients[i].span<float>()[j];
      difference += (want - got) * (want - got);
      norm += want * want;
    }
    EXPECT_LT(std::sqrt(difference), 0.03 * std::sqrt(norm)) << low.leaves[i].first;
  }
}

TEST(ModelMemory, CheckpointingKeepsOneTensorForEachLayer) {
  const auto live_after_forward = [](Checkpointing how) {
    TinyLlama model(DType::f32, Training::lora);
    model.checkpointing = how;
    const TinyBatch batch = TinyBatch::random({20, 30});
    const int64_t before = allocator_for({}).stats().live_bytes[static_cast<size_t>(MemoryTag::activations)];
    const Variable loss = model.loss(batch.ids, batch.labels, batch.layout, 0.125);
    return allocator_for({}).stats().live_bytes[static_cast<size_t>(MemoryTag::activations)] - before;
  };
  constexpr int64_t row = 50 * 4, hidden = TinyLlama::hidden * row;
  // Layer inputs, and the gradient of the last hidden state; the rest is a few numbers for each token.
  EXPECT_LT(live_after_forward(Checkpointing::layers), (TinyLlama::layer_count + 1) * hidden + hidden / 2 + 4096);
  // Without: x twice (the norms' inputs), q, k, v and what attention gives, gate and up; neither a normed
  // tensor nor SwiGLU's output. LoRA's t is 3 wide for each of the seven linears.
  constexpr int64_t q = TinyLlama::heads * TinyLlama::head_dim, kv = TinyLlama::kv_heads * TinyLlama::head_dim;
  constexpr int64_t layer = 2 * hidden + (2 * q + 2 * kv + 2 * TinyLlama::ffn + 7 * TinyLlama::rank + 2 + 4) * row;
  EXPECT_LT(live_after_forward(Checkpointing::none), TinyLlama::layer_count * layer + 3 * hidden + hidden / 2 + 4096);
}

TEST(ModelMemory, EvaluationKeepsNothing) {
  TinyLlama model(DType::f32, Training::lora);
  const TinyBatch batch = TinyBatch::random({9});
  const NoGradScope no_grad;
  const Variable loss = model.loss(batch.ids, batch.labels, batch.layout, 1.0);
  EXPECT_FALSE(loss.requires_grad());
}

}  // namespace
}  // namespace lathe::autograd::testing
