// Log-probabilities of tokens and a scale for each token's loss: numerically in f64, in bits against the kernels, on
// the CPU and on devices.
#include "autograd/ops/token_logprobs.h"

#include <algorithm>
#include <string>
#include <utility>

#include "autograd/gradcheck.h"
#include "autograd/ops/arithmetic.h"
#include "autograd/ops/linear_cross_entropy.h"
#include "autograd/ops/view.h"
#include "core/error.h"
#include "core/thread_pool.h"
#include "kernels/add/add.h"
#include "kernels/cuda/runtime.h"
#include "kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "tests/autograd/tensors.h"

namespace lathe::autograd::testing {
namespace {

constexpr int64_t tokens = 9, vocabulary = 21, width = 8;

Tensor targets_of(RandomStream& random) {
  Tensor targets = integers(random, tokens, vocabulary);
  for (const int ignored : {1, 8}) targets.data<int32_t>()[ignored] = kernels::ignored_label;
  return targets;
}

class TokenLogprobs : public ::testing::Test {
 protected:
  Tensor exact(const Shape& shape) { return random_tensor(random_, shape, DType::f64); }

  template <class Function>
  static void check(const std::vector<Variable>& leaves, Function function) {
    const auto outputs = [&](std::span<const Variable> in) { return std::vector<Variable>{function(in)}; };
    const GradcheckResult result = gradcheck(outputs, leaves);
    EXPECT_TRUE(result.passed) << result.report;
    for (const Variable& leaf : leaves) EXPECT_TRUE(leaf.grad().defined() && any_nonzero(leaf.grad()));
  }

  RandomStream random_{7, RandomPurpose::test};
  SequenceLayout layout_ = layout_of({3, 1, 5}, 2);
  Tensor targets_ = targets_of(random_);
};

// gradcheck contracts with another number for each token.
TEST_F(TokenLogprobs, GradientOfEveryToken) {
  const Variable hidden = Variable::leaf(exact({tokens, width})), weight = Variable::leaf(exact({vocabulary, width}));
  const kernels::PackedWeight packed = kernels::pack_weight(weight.value(), DType::f64);
  for (const auto& [softcap, temperature] : {std::pair(0.0f, 1.0f), {2.0f, 1.0f}, {0.0f, 0.7f}, {2.0f, 1.5f}}) {
    SCOPED_TRACE(std::to_string(softcap) + ", " + std::to_string(temperature));
    const auto logprobs = [&, cap = softcap, divisor = temperature](const Variable& h, const LinearWeight& w) {
      return token_logprobs(h, w, targets_, layout_, cap, divisor);
    };
    check({hidden}, [&](auto in) { return logprobs(in[0], packed); });
    check({weight}, [&](auto in) { return logprobs(hidden.detach(), in[0]); });
    check({hidden, weight}, [&](auto in) { return logprobs(in[0], in[1]); });
    // Some tokens of some sequences, as preference optimisation sums them, and a hidden that is computed.
    check({hidden, weight}, [&](auto in) { return sum(slice(logprobs(scale(in[0], 0.5), in[1]), 0, 2, 7)); });
  }
}

TEST_F(TokenLogprobs, EntropiesHaveGradientsBesideThem) {
  const Variable hidden = Variable::leaf(exact({tokens, width})), weight = Variable::leaf(exact({vocabulary, width}));
  const kernels::PackedWeight packed = kernels::pack_weight(weight.value(), DType::f64);
  for (const auto& [softcap, temperature] : {std::pair(0.0f, 1.0f), {2.0f, 0.7f}}) {
    const auto both = [&, cap = softcap, divisor = temperature](const Variable& h, const LinearWeight& w) {
      const TokenDistributions found = token_distributions(h, w, targets_, layout_, cap, divisor);
      return std::vector<Variable>{found.logprobs, found.entropies};
    };
    const auto passes = [](const std::vector<Variable>& leaves, auto function) {
      const GradcheckResult result = gradcheck(function, leaves);
      EXPECT_TRUE(result.passed) << result.report;
    };
    passes({hidden}, [&](std::span<const Variable> in) { return both(in[0], packed); });
    passes({hidden, weight}, [&](std::span<const Variable> in) { return both(in[0], in[1]); });
    check({hidden, weight}, [&](auto in) { return both(in[0], in[1])[1]; });  // nothing flows to the log-probabilities
  }
  // Two roots in one walk are the sum of two walks.
  const Tensor of_logprobs = exact({tokens}), of_entropies = exact({tokens});
  const auto gradient = [&](Tensor first, Tensor second) {
    const Variable leaf = Variable::leaf(hidden.value().clone());
    const TokenDistributions found = token_distributions(leaf, packed, targets_, layout_);
    backward({{found.logprobs, std::move(first)}, {found.entropies, std::move(second)}});
    return leaf.grad();
  };
  const Tensor whole = gradient(of_logprobs, of_entropies), first = gradient(of_logprobs, {}),
               second = gradient({}, of_entropies);
  for (int64_t i = 0; i < whole.numel(); ++i)
    EXPECT_NEAR(whole.data<double>()[i], first.data<double>()[i] + second.data<double>()[i], 1e-12);
  EXPECT_THROW(backward({{hidden, of_logprobs}}), ShapeError);
}

TEST_F(TokenLogprobs, LossWithAScaleForEachToken) {
  const Variable hidden = Variable::leaf(exact({tokens, width})), weight = Variable::leaf(exact({vocabulary, width}));
  const kernels::PackedWeight packed = kernels::pack_weight(weight.value(), DType::f64);
  const Tensor scales = exact({tokens});
  const auto loss = [&](const Variable& h, const LinearWeight& w) {
    return linear_cross_entropy(h, w, targets_, layout_, scales, 2.0f).loss;
  };
  check({hidden}, [&](auto in) { return loss(in[0], packed); });
  check({hidden, weight}, [&](auto in) { return loss(in[0], in[1]); });
  const CrossEntropyResult result = linear_cross_entropy(hidden, packed, targets_, layout_, scales, 2.0f);
  double expected = 0;
  for (size_t t = 0; t < tokens; ++t) expected += scales.span<double>()[t] * result.token_loss.span<double>()[t];
  EXPECT_EQ(*result.loss.value().data<double>(), expected);
}

// Nothing of [T, V] outlives the forward or the backward.
TEST_F(TokenLogprobs, KeepsNoLogits) {
  constexpr int64_t many = 5000;
  const Variable hidden = Variable::leaf(random_tensor(random_, {tokens, width}, DType::f32));
  const kernels::PackedWeight weight =
      kernels::pack_weight(random_tensor(random_, {many, width}, DType::f32), DType::f32);
  const auto live_bytes = [] { return allocator_for({}).stats().total_live_bytes; };
  backward(sum(token_logprobs(hidden, weight, targets_, layout_)));  // the products' own scratch stays from here on
  const auto before = live_bytes();
  const Variable logprobs = token_logprobs(hidden, weight, targets_, layout_);
  EXPECT_LT(live_bytes() - before, many * 4) << "a row of logits";
  backward(sum(logprobs));
  EXPECT_LT(live_bytes() - before, many * 4) << "a row of logits";
}

TEST_F(TokenLogprobs, NeedsATargetInTheVocabulary) {
  targets_.data<int32_t>()[4] = vocabulary;
  EXPECT_THROW(token_logprobs(exact({tokens, width}), exact({vocabulary, width}), targets_, layout_), ShapeError);
}

struct Place {
  DeviceKind kind;
  DType dtype;
};
class TokenLogprobsOnDevice : public ::testing::TestWithParam<Place> {
 protected:
  void SetUp() override {
    if (const std::string why = kernels::why_unavailable(device_); !why.empty()) GTEST_SKIP() << why;
  }
  Tensor here(const Tensor& tensor) const { return kernels::moved(tensor, device_); }
  static Tensor on_cpu(const Tensor& tensor) { return kernels::moved(tensor, {}); }
  Variable leaf(const Tensor& tensor) const { return Variable::leaf(here(tensor)); }

  Device device_{GetParam().kind};
  DType dtype_ = GetParam().dtype;
  RandomStream random_{11, RandomPurpose::test};
  SequenceLayout layout_ = layout_of({3, 1, 5}, 2);
  Tensor hidden_ = random_tensor(random_, {tokens, width}, dtype_);
  Tensor weight_ = random_tensor(random_, {vocabulary, width}, dtype_);
  Tensor targets_ = targets_of(random_);
  Tensor gradient_ = random_tensor(random_, {tokens}, DType::f32);
};
INSTANTIATE_TEST_SUITE_P(, TokenLogprobsOnDevice,
                         ::testing::Values(Place{DeviceKind::cpu, DType::f32}, Place{DeviceKind::cpu, DType::bf16},
                                           Place{DeviceKind::simt, DType::f32}, Place{DeviceKind::simt, DType::bf16},
                                           Place{DeviceKind::cuda, DType::f32}, Place{DeviceKind::cuda, DType::bf16}),
                         [](const auto& info) {
                           const DeviceKind kind = info.param.kind;
                           const char* device = kind == DeviceKind::cpu    ? "cpu"
                                                : kind == DeviceKind::simt ? "simt"
                                                                           : "cuda";
                           return device + ("_" + std::string(name_of(info.param.dtype)));
                         });

TEST_P(TokenLogprobsOnDevice, AreTheKernelsBitsAndZeroWhereIgnored) {
  const Tensor hidden = here(hidden_), weight = here(weight_);
  const Tensor logits = Tensor::empty({tokens, vocabulary}, DType::f32, device_),
               direct = Tensor::empty({tokens}, DType::f32, device_);
  kernels::linear_forward(logits, hidden, weight);
  const Tensor listed = targets_.clone();
  for (int32_t& target : listed.span<int32_t>()) target = std::max(target, 0);
  for (const float temperature : {1.0f, 0.7f}) {
    SCOPED_TRACE(temperature);
    kernels::scale(logits, logits, 1.0f / temperature);
    kernels::token_logprobs(direct, logits, listed);
    const Tensor expected = on_cpu(direct).clone();
    for (int64_t t = 0; t < tokens; ++t) {
      if (targets_.data<int32_t>()[t] == kernels::ignored_label) expected.data<float>()[t] = 0.0f;
    }
    const auto logprobs_of = [&](const Variable& h) {
      return on_cpu(token_logprobs(h, weight, targets_, layout_, 0.0f, temperature).value());
    };
    EXPECT_TRUE(same_bits(logprobs_of(Variable::leaf(hidden)), expected));
    EXPECT_TRUE(same_bits(logprobs_of(hidden), expected)) << "not recorded";
  }
}

// The gradients of the scaled loss, of hidden over a packed weight, and of hidden and a weight that trains.
TEST_P(TokenLogprobsOnDevice, MinusTheScaleGivesTheBitsOfTheLoss) {
  const Tensor scales = here(gradient_), negated = Tensor::empty({tokens}, DType::f32, device_);
  kernels::scale(negated, scales, -1.0);
  const kernels::PackedWeight packed = kernels::pack_weight(here(weight_), dtype_);
  for (const bool trains : {false, true}) {
    const Variable h[] = {leaf(hidden_), leaf(hidden_)}, w[] = {leaf(weight_), leaf(weight_)};
    const auto weight = [&](int i) { return trains ? LinearWeight(w[i]) : LinearWeight(packed); };
    backward(token_logprobs(h[0], weight(0), targets_, layout_), negated);
    backward(linear_cross_entropy(h[1], weight(1), targets_, layout_, scales).loss);
    EXPECT_TRUE(same_bits(on_cpu(h[0].grad()), on_cpu(h[1].grad()))) << trains;
    if (trains) {
      EXPECT_TRUE(same_bits(on_cpu(w[0].grad()), on_cpu(w[1].grad())));
    }
  }
}

// Equal gradients of all tokens: the loss with one number.
TEST_P(TokenLogprobsOnDevice, EqualGradientsGiveTheBitsOfTheMeanLoss) {
  const Variable h[] = {leaf(hidden_), leaf(hidden_)}, w[] = {leaf(weight_), leaf(weight_)};
  const float share = 1.0f / 7;
  const Tensor equal = Tensor::empty({tokens}, DType::f32);
  kernels::fill(equal, -share);
  backward(token_logprobs(h[0], w[0], targets_, layout_), here(equal));
  backward(linear_cross_entropy(h[1], w[1], targets_, layout_, share).loss);
  EXPECT_TRUE(same_bits(on_cpu(h[0].grad()), on_cpu(h[1].grad())));
  EXPECT_TRUE(same_bits(on_cpu(w[0].grad()), on_cpu(w[1].grad())));
}

TEST_P(TokenLogprobsOnDevice, ABatchIsItsSequencesOneAfterAnother) {
  const Variable together = leaf(weight_), apart = leaf(weight_), hidden = leaf(hidden_);
  const Variable logprobs = token_logprobs(hidden, together, targets_, layout_);
  backward(logprobs, here(gradient_));
  const Tensor hidden_gradient = on_cpu(hidden.grad());
  for (int64_t s = 0; s < layout_.sequences(); ++s) {
    const int32_t begin = layout_.cu_seqlens.data<int32_t>()[s], end = layout_.cu_seqlens.data<int32_t>()[s + 1];
    const Variable alone = leaf(hidden_.slice(0, begin, end));
    const Variable part =
        token_logprobs(alone, apart, targets_.slice(0, begin, end), layout_of({end - begin}, static_cast<int32_t>(s)));
    backward(part, here(gradient_.slice(0, begin, end)));
    EXPECT_TRUE(same_bits(on_cpu(part.value()), on_cpu(logprobs.value()).slice(0, begin, end))) << s;
    EXPECT_TRUE(same_bits(on_cpu(alone.grad()), hidden_gradient.slice(0, begin, end))) << s;
  }
  EXPECT_TRUE(same_bits(on_cpu(apart.grad()), on_cpu(together.grad())));
}

TEST_P(TokenLogprobsOnDevice, TheNumberOfThreadsChangesNoBit) {
  const int before = thread_count();
  std::vector<Tensor> results;
  for (const int threads : {1, 2}) {
    set_thread_count(threads);
    const Variable hidden = leaf(hidden_), weight = leaf(weight_);
    const Variable logprobs = token_logprobs(hidden, weight, targets_, layout_);
    backward(logprobs, here(gradient_));
    for (const Tensor& result : {logprobs.value(), hidden.grad(), weight.grad()}) results.push_back(on_cpu(result));
  }
  set_thread_count(before);
  for (size_t i = 0; i < 3; ++i) EXPECT_TRUE(same_bits(results[i], results[i + 3])) << i;
}

}  // namespace
}  // namespace lathe::autograd::testing
