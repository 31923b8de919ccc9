// A mixture of experts in decoding on a device: what was chosen stays there, in few launches that wait for nobody, with
// the bits of the host's asking.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "autograd/recording.h"
#include "kernels/copy/copy.h"
#include "kernels/cuda/queued_work.h"
#include "kernels/cuda/runtime.h"
#include "nn/experts.h"
#include "tests/kernels/ggml_blocks.h"

namespace lathe::nn {
namespace {

using lathe::testing::random_matrix;
using lathe::testing::RandomBlocks;
using lathe::testing::same_bits;

const Device simt{DeviceKind::simt};
constexpr int64_t hidden = 128, inner = 64, count = 8;

enum class Kind { dense, nf4, blocks };

Experts mixture_of(Kind kind, DType dtype, Activation activation, bool biased) {
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
  Experts mixture{.per_token = 3,
                  .normalised = true,
                  .activation = activation,
                  .router = {"router", values(count, hidden, dtype), {}},
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

// Up to 16 tokens; more, and those that are recorded, have the host know.
TEST(ExpertsOnDevice, HaveTheBitsOfTheHostsAsking) {
  const autograd::NoGradScope no_grad;
  for (const Kind kind : {Kind::dense, Kind::nf4, Kind::blocks})
    for (const Activation activation : {Activation::silu, Activation::gelu_tanh, Activation::clamped_silu}) {
      const Experts asking = mixture_of(kind, DType::bf16, activation, activation == Activation::clamped_silu);
      Experts staying = asking;
      staying.make_tables(DType::bf16);
      for (const int64_t tokens : {1, 2, 9, 16, 17}) {
        ASSERT_EQ(staying.stays_on_device(tokens), tokens <= 16);
        const autograd::Variable x(kernels::moved(random_matrix(tokens, hidden, DType::bf16, 90), simt));
        const auto result = [&](const Experts& mixture) {
          return kernels::moved(mixture(x, one_sequence(tokens)).value(), {});
        };
        EXPECT_TRUE(same_bits(result(staying), result(asking)))
            << tokens << " tokens, kind " << static_cast<int>(kind) << ", activation " << static_cast<int>(activation);
      }
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

// What no body takes: f32, and an expert of another kind.
TEST(ExpertsOnDevice, OfWhatHasNoBodyAskTheHost) {
  Experts wide = mixture_of(Kind::dense, DType::f32, Activation::silu, false);
  wide.make_tables(DType::f32);
  EXPECT_FALSE(wide.stays_on_device(1));
  Experts mixed = mixture_of(Kind::dense, DType::bf16, Activation::silu, false);
  mixed.experts[3] = mixture_of(Kind::nf4, DType::bf16, Activation::silu, false).experts[3];
  mixed.make_tables(DType::bf16);
  EXPECT_FALSE(mixed.stays_on_device(1));
}

}  // namespace
}  // namespace lathe::nn
