#include "autograd/ops/causal_conv.h"

#include <cstring>

#include "autograd/gradcheck.h"
#include "autograd/recording.h"
#include "kernels/copy/copy.h"
#include "tests/autograd/shared_prefixes.h"
#include "tests/autograd/tensors.h"

namespace lathe::autograd::testing {
namespace {

TEST(CausalConvGradient, IsThatOfDifferences) {
  RandomStream random(5, RandomPurpose::test);
  const auto leaf = [&](const Shape& shape) { return Variable::leaf(random_tensor(random, shape, DType::f64)); };
  const std::vector<Variable> all = {leaf({15, 6}), leaf({6, 1, 4}), leaf({6})};
  GradcheckResult result = gradcheck(
      [&](std::span<const Variable> in) {
        return std::vector<Variable>{causal_conv(in[0], in[1], in[2], layout_of({4, 1, 10}))};
      },
      all);
  EXPECT_TRUE(result.passed) << result.report;
  result = gradcheck(
      [&](std::span<const Variable> in) { return std::vector<Variable>{causal_conv(in[0], in[1], in[2], prefixes())}; },
      all);
  EXPECT_TRUE(result.passed) << result.report;
  result = gradcheck(  // frozen, and without a bias: the kernel gets no tensors for them
      [&](std::span<const Variable> in) {
        return std::vector<Variable>{causal_conv(in[0], all[1].detach(), {}, layout_of({4, 1, 10}))};
      },
      std::span(all).first(1));
  EXPECT_TRUE(result.passed) << result.report;
}

TEST(CausalConvGradient, SharedRowsHaveTheBitsOfWholeSequences) {
  const NoGradScope no_grad;
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    RandomStream random(8, RandomPurpose::test);
    const auto make = [&](const Shape& shape) {
      return kernels::cast(random_tensor(random, shape, DType::f32), dtype);
    };
    const Tensor x = make({15, 16});
    const Variable weight(make({16, 1, 4}));
    const Tensor expected = repeated(causal_conv(Variable(x), weight, {}, prefixes()).value());
    const Tensor whole = causal_conv(Variable(repeated(x)), weight, {}, SequenceLayout::of(whole_lengths)).value();
    EXPECT_EQ(std::memcmp(expected.raw(), whole.raw(), static_cast<size_t>(expected.nbytes())), 0);
  }
}

}  // namespace
}  // namespace lathe::autograd::testing
