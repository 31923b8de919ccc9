// A mixture of experts on a device: what was chosen stays there, in few launches that wait for nobody, with the bits of
// the host's asking, for a token and for many; so are its gradients, where the experts are frozen.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "autograd/ops/arithmetic.h"
#include "autograd/recording.h"
#include "kernels/copy/copy.h"
#include "kernels/cuda/queued_work.h"
#include "kernels/cuda/runtime.h"
#include "kernels/simt/options.h"
#include "nn/experts.h"
#include "tests/kernels/ggml_blocks.h"
#include "tests/support/hopper.h"

namespace lathe::nn {
namespace {

using lathe::testing::random_matrix;
using lathe::testing::RandomBlocks;
using lathe::testing::same_bits;

const Device simt{DeviceKind::simt};
constexpr int64_t hidden = 128, inner = 64, count = 8;

enum class Kind { dense, nf4, blocks };

// `leaning`: all tokens go to expert 5 and none to 0 and 1.
Experts mixture_of(Kind kind, DType dtype, Activation activation, bool biased, bool leaning = false,
                   int64_t per_token = 3) {
  uint64_t seed = 1;
  const auto values = [&](int64_t rows, int64_t columns, DType of) {
    return kernels::moved(random_matrix(rows, columns, of, ++seed), simt);
  };
  const auto weight = [&](int64_t rows, int64_t columns) -> autograd::LinearWeight {
    if (kind == Kind::blocks) return RandomBlocks(kernels::GgmlFormat::mxfp4, rows, columns, dtype, ++seed).on(simt);
    if (kind == Kind::dense) return kernels::pack_weight(values(rows, columns, dtype), dtype);
    return kernels::QuantizedWeight::quantize(values(rows, columns, DType::f32), kernels::QuantizedFormat::nf4);
  };
  const auto bias = [&](int64_t rows) {
    return biased ? autograd::Variable(values(1, rows, dtype).view({rows})) : autograd::Variable();
  };
  const auto leaning_bias = [&] {
    std::vector<float> values(count, 0.0f);
    values[0] = values[1] = -1000, values[5] = 1000;
    return autograd::Variable(kernels::moved(kernels::cast(Tensor::of<float>(values, {count}), dtype), simt));
  };
  Experts mixture{.per_token = per_token,
                  .normalised = true,
                  .activation = activation,
                  .router = {"router", values(count, hidden, dtype), leaning ? leaning_bias() : autograd::Variable()},
                  .experts = {}};
  for (int64_t e = 0; e < count; ++e)
    mixture.experts.push_back({{"gate", weight(inner, hidden), bias(inner)},
                               {"up", weight(inner, hidden), bias(inner)},
                               {"down", weight(hidden, inner), bias(hidden)}});
  return mixture;
}

BatchRows one_sequence(int64_t tokens) {
  const int32_t lengths[] = {static_cast<int32_t>(tokens)};
  return {autograd::SequenceLayout::of(lengths), {}, {}};
}

struct QueuedCounts final : kernels::QueuedWorkListener {
  std::map<std::string, int64_t> by_name;
  void queued(const char* name, int64_t) override { ++by_name[name]; }
};

Tensor random_tokens(int64_t tokens, uint64_t seed, DType dtype = DType::bf16) {
  return kernels::moved(random_matrix(tokens, hidden, dtype, seed), simt);
}
Tensor rows_of(const Experts& mixture, const Tensor& x) {
  return kernels::moved(mixture(autograd::Variable(x), one_sequence(x.dim(0))).value(), {});
}

TEST(ExpertsOnDevice, HaveTheBitsOfTheHostsAsking) {
  const autograd::NoGradScope no_grad;
  for (const Kind kind : {Kind::dense, Kind::nf4, Kind::blocks})
    for (const Activation activation : {Activation::silu, Activation::gelu_tanh, Activation::clamped_silu}) {
      const Experts asking = mixture_of(kind, DType::bf16, activation, activation == Activation::clamped_silu);
      Experts staying = asking;
      staying.make_tables(DType::bf16);
      ASSERT_TRUE(staying.stays_on_device());
      ASSERT_FALSE(asking.stays_on_device());
      for (const int64_t tokens : {1, 2, 9, 16, 17}) {
        const Tensor x = random_tokens(tokens, 90);
        EXPECT_TRUE(same_bits(rows_of(staying, x), rows_of(asking, x)))
            << tokens << " tokens, kind " << static_cast<int>(kind) << ", activation " << static_cast<int>(activation);
      }
    }
}

// Groups of 64 rows by dense weights from eight rows for each expert on, by codes from 64 on; routers that send all to
// one and none to others; as Mixtral chooses (two), Qwen3-MoE (more), gpt-oss (with biases).
TEST(ExpertsOnDevice, OfManyTokensHaveTheBitsOfTheHostsAsking) {
  const autograd::NoGradScope no_grad;
  struct Case {
    Kind kind;
    Activation activation;
    bool biased, leaning;
    int64_t per_token, tokens;
  };
  for (const Case& of : {Case{Kind::dense, Activation::silu, false, true, 2, 70},
                         Case{Kind::dense, Activation::clamped_silu, true, false, 4, 30},
                         Case{Kind::nf4, Activation::silu, false, true, 2, 70},        // codes as they are
                         Case{Kind::nf4, Activation::gelu_tanh, false, false, 6, 86},  // and dequantised
                         Case{Kind::blocks, Activation::clamped_silu, true, true, 4, 40}}) {
    SCOPED_TRACE("kind " + std::to_string(static_cast<int>(of.kind)) + ", " + std::to_string(of.tokens) + " tokens");
    const Experts asking = mixture_of(of.kind, DType::bf16, of.activation, of.biased, of.leaning, of.per_token);
    Experts staying = asking;
    staying.make_tables(DType::bf16);
    const Tensor x = random_tokens(of.tokens, 93), all = rows_of(staying, x);
    EXPECT_TRUE(same_bits(all, rows_of(asking, x)));
    for (const int64_t token : {int64_t{0}, of.tokens / 2, of.tokens - 1})
      EXPECT_TRUE(same_bits(rows_of(staying, x.slice(0, token, token + 1)), all.slice(0, token, token + 1)))
          << "token " << token << " alone";
  }
}

TEST(ExpertsOnDevice, AreFiveLaunchesAndWaitForNobody) {
  const autograd::NoGradScope no_grad;
  Experts mixture = mixture_of(Kind::dense, DType::bf16, Activation::silu, false);
  mixture.make_tables(DType::bf16);
  for (const int64_t tokens : {1, 16}) {
    const autograd::Variable x(kernels::moved(random_matrix(tokens, hidden, DType::bf16, 91), simt));
    const BatchRows rows = one_sequence(tokens);
    kernels::synchronize(simt);
    const QueuedCounts counts;
    const autograd::Variable out = mixture(x, rows);
    const std::map<std::string, int64_t> expected{{"product", 1},
                                                  {"choose_and_group_experts", 1},
                                                  {"grouped_gated", 1},
                                                  {"grouped_product", 1},
                                                  {"combine_experts", 1}};
    EXPECT_EQ(counts.by_name, expected) << tokens << " tokens";
  }
}

TEST(ExpertsOnDevice, AResidualIsNoLaunchMore) {
  const autograd::NoGradScope no_grad;
  Experts mixture = mixture_of(Kind::dense, DType::bf16, Activation::silu, false);
  mixture.make_tables(DType::bf16);
  for (const int64_t tokens : {1, 16, 40}) {
    const autograd::Variable x(random_tokens(tokens, 91)), residual(random_tokens(tokens, 92));
    const BatchRows rows = one_sequence(tokens);
    const auto queued = [&](const autograd::Variable& to) {
      kernels::synchronize(simt);
      const QueuedCounts counts;
      const autograd::Variable out = mixture(x, rows, to);
      return counts.by_name;
    };
    EXPECT_EQ(queued(residual), queued({})) << tokens << " tokens";
  }
}

TEST(ExpertsOnDevice, OfManyTokensAreAFewLaunchesAndWaitForNobody) {
  const autograd::NoGradScope no_grad;
  using Counts = std::map<std::string, int64_t>;
  const auto queued = [&](Kind kind, int64_t tokens) {
    Experts mixture = mixture_of(kind, DType::bf16, Activation::silu, false);
    mixture.make_tables(DType::bf16);
    const autograd::Variable x(random_tokens(tokens, 92));
    const BatchRows rows = one_sequence(tokens);
    kernels::synchronize(simt);
    const QueuedCounts counts;
    const autograd::Variable out = mixture(x, rows);
    return counts.by_name;
  };
  const Counts chosen{{"product", 1}, {"choose_experts", 1}, {"place_choices", 1}, {"combine_experts", 1}};
  const auto expected = [&](Counts more) {
    more.insert(chosen.begin(), chosen.end());
    return more;
  };
  EXPECT_EQ(queued(Kind::dense, 17), expected({{"grouped_gated", 1}, {"grouped_product", 1}}));
  EXPECT_EQ(queued(Kind::nf4, 30), expected({{"grouped_gated", 1}, {"grouped_product", 1}}));
  EXPECT_EQ(queued(Kind::dense, 30), expected({{"grouped_gated_tiles", 1}, {"grouped_tiles", 1}}));
  EXPECT_EQ(queued(Kind::nf4, 172),  // gate's rows, up's and down's
            expected({{"quantized_table_rows", 3}, {"grouped_gated_tiles", 1}, {"grouped_tiles", 1}}));
}

// ---- recorded ----

// What flows to x, which the router and the experts share as they do in a layer, and to the router's weight.
struct Gradients {
  Tensor out, x, router;
};
Gradients gradients_of(Experts mixture, const Tensor& x, uint64_t seed) {
  const autograd::Variable leaf = autograd::Variable::leaf(x),
                           router = autograd::Variable::leaf(*mixture.router.weight.value().dense());
  mixture.router.weight = router;
  const autograd::Variable out = mixture(autograd::scale(leaf, 1.0), one_sequence(x.dim(0)));
  backward(out, random_tokens(x.dim(0), seed, x.dtype()));
  const auto here = [](const Tensor& there) { return kernels::moved(there, {}); };
  return {here(out.value()), here(leaf.grad()), here(router.grad())};
}
void expect_the_same(const Gradients& found, const Gradients& expected) {
  EXPECT_TRUE(same_bits(found.out, expected.out)) << "the rows";
  EXPECT_TRUE(same_bits(found.x, expected.x)) << "the gradient of x";
  EXPECT_TRUE(same_bits(found.router, expected.router)) << "the gradient of the router";
}

// Of a few tokens and of many; as Mixtral chooses (two), Qwen3-MoE (more), gpt-oss (with biases); weights that are
// normalised and not; all to one expert and none to others.
TEST(ExpertsOnDevice, GradientsHaveTheBitsOfTheHostsAsking) {
  struct Case {
    Kind kind;
    DType dtype;
    Activation activation;
    bool biased, leaning, normalised;
    int64_t per_token, tokens;
  };
  for (const Case& of : {Case{Kind::dense, DType::bf16, Activation::silu, false, false, true, 2, 1},
                         Case{Kind::dense, DType::bf16, Activation::silu, false, true, false, 2, 70},
                         Case{Kind::dense, DType::bf16, Activation::clamped_silu, true, false, true, 4, 30},
                         Case{Kind::dense, DType::f16, Activation::gelu_tanh, false, false, true, 3, 9},
                         Case{Kind::nf4, DType::bf16, Activation::silu, false, true, true, 2, 70},
                         Case{Kind::nf4, DType::bf16, Activation::gelu_tanh, false, false, false, 6, 17},
                         Case{Kind::blocks, DType::bf16, Activation::clamped_silu, true, true, true, 4, 20}}) {
    SCOPED_TRACE("kind " + std::to_string(static_cast<int>(of.kind)) + ", " + std::to_string(of.tokens) + " tokens, " +
                 std::string(name_of(of.dtype)));
    Experts asking = mixture_of(of.kind, of.dtype, of.activation, of.biased, of.leaning, of.per_token);
    asking.normalised = of.normalised;
    Experts staying = asking;
    staying.make_tables(of.dtype);
    ASSERT_TRUE(staying.stays_on_device());
    const Tensor x = random_tokens(of.tokens, 94, of.dtype);
    const Gradients found = gradients_of(staying, x, 95);
    expect_the_same(found, gradients_of(asking, x, 95));
    const autograd::NoGradScope no_grad;
    EXPECT_TRUE(same_bits(rows_of(staying, x), found.out)) << "what is recorded are the bits of what is not";
  }
}

// Grouped on the device and where the host asks: the residual's sum and all gradients have the bits of an addition
// after the mixture.
TEST(ExpertsOnDevice, AResidualHasTheBitsOfAnAdditionAfterThem) {
  struct Found {
    Tensor out, x, residual;
  };
  const auto found = [](const Experts& mixture, int64_t tokens, bool fused) {
    const autograd::Variable x = autograd::Variable::leaf(random_tokens(tokens, 94)),
                             residual = autograd::Variable::leaf(random_tokens(tokens, 95));
    const BatchRows rows = one_sequence(tokens);
    const autograd::Variable h = autograd::scale(x, 1.0), into = autograd::add(h, residual);
    const autograd::Variable out = fused ? mixture(h, rows, into) : autograd::add(into, mixture(h, rows));
    backward(out, random_tokens(tokens, 96));
    const auto here = [](const Tensor& there) { return kernels::moved(there, {}); };
    return Found{here(out.value()), here(x.grad()), here(residual.grad())};
  };
  const Experts asking = mixture_of(Kind::dense, DType::bf16, Activation::silu, true);
  Experts staying = asking;
  staying.make_tables(DType::bf16);
  for (const Experts* mixture : {&asking, static_cast<const Experts*>(&staying)})
    for (const int64_t tokens : {1, 9, 30}) {
      SCOPED_TRACE(std::to_string(tokens) + (mixture == &asking ? " tokens, asking" : " tokens"));
      const Found one = found(*mixture, tokens, true), two = found(*mixture, tokens, false);
      EXPECT_TRUE(same_bits(one.out, two.out));
      EXPECT_TRUE(same_bits(one.x, two.x));
      EXPECT_TRUE(same_bits(one.residual, two.residual));
    }
}

// Whose products are wgmma's: gate and up, down, and the gradients through either.
TEST(ExpertsOnDevice, OfACardOfSm90HaveTheBitsOfOthers) {
  for (const Kind kind : {Kind::dense, Kind::nf4}) {
    SCOPED_TRACE("kind " + std::to_string(static_cast<int>(kind)));
    Experts mixture = mixture_of(kind, DType::bf16, Activation::silu, false, true);
    mixture.make_tables(DType::bf16);
    const Tensor x = random_tokens(70, 94);
    const Gradients expected = gradients_of(mixture, x, 95);
    const lathe::testing::Hopper hopper(simt::FiberOrder::shuffled);
    mixture.make_tables(DType::bf16);
    QueuedCounts counts;
    expect_the_same(gradients_of(mixture, x, 95), expected);
    EXPECT_EQ(counts.by_name["grouped_gated_warpgroup"], 1);
    EXPECT_EQ(counts.by_name["grouped_warpgroup"], 3);
  }
}

// In every order of simt's threads, and again: nothing is left to chance.
TEST(ExpertsOnDevice, GradientsAreTheSameInEveryOrderOfThreads) {
  Experts mixture = mixture_of(Kind::dense, DType::bf16, Activation::silu, false);
  mixture.make_tables(DType::bf16);
  const Tensor x = random_tokens(21, 96);
  const Gradients expected = gradients_of(mixture, x, 97);
  for (const auto order : {simt::FiberOrder::ascending, simt::FiberOrder::descending, simt::FiberOrder::shuffled}) {
    simt::set_fiber_order(order);
    expect_the_same(gradients_of(mixture, x, 97), expected);
  }
  simt::set_fiber_order(simt::FiberOrder::ascending);
}

TEST(ExpertsOnDevice, GradientsAreAFewLaunchesAndWaitForNobody) {
  using Counts = std::map<std::string, int64_t>;
  const auto queued = [&](Kind kind) {
    Experts mixture = mixture_of(kind, DType::bf16, Activation::silu, false);
    mixture.make_tables(DType::bf16);
    const autograd::Variable x = autograd::scale(autograd::Variable::leaf(random_tokens(17, 98)), 1.0);
    const Tensor cotangent = random_tokens(17, 99);
    const BatchRows rows = one_sequence(17);
    kernels::synchronize(simt);
    const QueuedCounts counts;
    backward(mixture(x, rows), cotangent);
    return counts.by_name;
  };
  // The router's product and its gradient; choices; the experts; what passes on to the leaf.
  const Counts all{{"product", 2},
                   {"choose_experts", 1},
                   {"place_choices", 1},
                   {"grouped_gated_tiles", 1},
                   {"grouped_tiles", 1},
                   {"combine_experts", 2},
                   {"combine_experts_backward", 1},
                   {"choose_experts_backward", 1},
                   {"grouped_gradient_tiles", 2},
                   {"gated_backward", 1},
                   {"scale", 1},
                   {kernels::queued_clear, 1},
                   {"add", 1}};
  EXPECT_EQ(queued(Kind::dense), all);
  Counts in_codes = all;  // gate's, up's and down's, forward and backward
  in_codes["quantized_table_rows"] = 3 + 3;
  EXPECT_EQ(queued(Kind::nf4), in_codes);
}

// Experts that train, and what adapters change, have gradients of their own.
TEST(ExpertsOnDevice, ThatTrainAskTheHost) {
  Experts mixture = mixture_of(Kind::dense, DType::bf16, Activation::silu, false);
  for (Expert& expert : mixture.experts)
    expert.up_proj.weight =
        autograd::Variable::leaf(kernels::moved(random_matrix(inner, hidden, DType::bf16, 7), simt));
  for (Expert& expert : mixture.experts) expert.gate_proj.weight = expert.up_proj.weight.dense().value();
  mixture.make_tables(DType::bf16);
  ASSERT_TRUE(mixture.stays_on_device());
  EXPECT_TRUE(mixture.trains());
  const autograd::Variable out = mixture(autograd::Variable(random_tokens(5, 90)), one_sequence(5));
  backward(out, random_tokens(5, 91));
  EXPECT_TRUE(std::ranges::any_of(mixture.experts,
                                  [](const Expert& expert) { return expert.up_proj.weight.dense().grad().defined(); }));
}

// What no body takes: f32, and an expert of another kind.
TEST(ExpertsOnDevice, OfWhatHasNoBodyAskTheHost) {
  Experts wide = mixture_of(Kind::dense, DType::f32, Activation::silu, false);
  wide.make_tables(DType::f32);
  EXPECT_FALSE(wide.stays_on_device());
  Experts mixed = mixture_of(Kind::dense, DType::bf16, Activation::silu, false);
  mixed.experts[3] = mixture_of(Kind::nf4, DType::bf16, Activation::silu, false).experts[3];
  mixed.make_tables(DType::bf16);
  EXPECT_FALSE(mixed.stays_on_device());
}

}  // namespace
}  // namespace lathe::nn
