// A mixture of experts in inference, whose experts' products are grouped, against the same while it is recorded.
#include "nn/experts.h"

#include <gtest/gtest.h>

#include "autograd/ops/arithmetic.h"
#include "autograd/recording.h"
#include "core/fork_count.h"
#include "core/thread_pool.h"
#include "tests/kernels/ggml_blocks.h"

namespace lathe::nn {
namespace {

using lathe::testing::random_matrix;
using lathe::testing::RandomBlocks;
using lathe::testing::same_bits;

constexpr int64_t hidden = 256, inner = 512, count = 8;

enum class Kind { dense, packed, blocks };

// Bodies of weights of which every fourth expert's are of another kind.
Experts mixture_of(Kind kind, DType dtype, Activation activation) {
  uint64_t seed = 1;
  const auto weight = [&](int64_t rows, int64_t columns, Kind of) -> autograd::LinearWeight {
    ++seed;
    if (of == Kind::blocks) return RandomBlocks(kernels::GgmlFormat::q4_0, rows, columns, dtype, seed).weight;
    const Tensor values = random_matrix(rows, columns, dtype, seed);
    if (of == Kind::packed) return kernels::pack_weight(values, dtype);
    return values;
  };
  const auto bias = [&](int64_t rows) {
    return autograd::Variable(random_matrix(1, rows, dtype, ++seed).view({rows}));
  };
  Experts mixture{.per_token = 3,
                  .normalised = true,
                  .activation = activation,
                  .router = {"router", random_matrix(count, hidden, dtype, 1), {}},
                  .experts = {}};
  for (int64_t e = 0; e < count; ++e) {
    const Kind of = e % 4 == 3 ? Kind::dense : kind;
    mixture.experts.push_back({{"gate", weight(inner, hidden, of), bias(inner)},
                               {"up", weight(inner, hidden, of), bias(inner)},
                               {"down", weight(hidden, inner, of), bias(hidden)}});
  }
  return mixture;
}

BatchRows one_sequence(int64_t tokens) {
  const int32_t lengths[] = {static_cast<int32_t>(tokens)};
  return {autograd::SequenceLayout::of(lengths), {}, {}};
}

TEST(Experts, GroupedTheyHaveTheBitsOfOneAfterTheOther) {
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const Kind kind : {Kind::dense, Kind::packed, Kind::blocks})
      for (const Activation activation : {Activation::silu, Activation::gelu_tanh, Activation::clamped_silu}) {
        const Experts mixture = mixture_of(kind, dtype, activation);
        for (const int64_t tokens : {1, 2, 7, 64, 65}) {
          const autograd::Variable x(random_matrix(tokens, hidden, dtype, 90));
          const Tensor recorded = mixture(x, one_sequence(tokens)).value();
          const autograd::NoGradScope no_grad;
          EXPECT_TRUE(same_bits(mixture(x, one_sequence(tokens)).value(), recorded))
              << tokens << " tokens, kind " << static_cast<int>(kind);
          EXPECT_TRUE(same_bits(mixture(x, one_sequence(tokens), x).value(),
                                autograd::add(x, autograd::Variable(recorded)).value()))
              << tokens << " tokens, kind " << static_cast<int>(kind) << ", added to x";
        }
      }
}

TEST(Experts, ATokensAreFewForks) {
  const int threads = thread_count();
  set_thread_count(2);
  Experts mixture = mixture_of(Kind::packed, DType::bf16, Activation::silu);
  for (Expert& expert : mixture.experts) expert = mixture.experts[0];
  const autograd::Variable x(random_matrix(1, hidden, DType::bf16, 91));
  const autograd::NoGradScope no_grad;
  const int64_t before = fork_count();
  mixture(x, one_sequence(1));
  EXPECT_LE(fork_count() - before, 4) << "the router, gate and up, down, and what is small may not fork at all";
  set_thread_count(threads);
}

}  // namespace
}  // namespace lathe::nn
