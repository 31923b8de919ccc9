#include "autograd/ops/short_conv.h"

#include <cstring>

#include "autograd/gradcheck.h"
#include "autograd/recording.h"
#include "kernels/copy/copy.h"
#include "tests/autograd/shared_prefixes.h"
#include "tests/autograd/tensors.h"

namespace lathe::autograd::testing {
namespace {

TEST(ShortConvGradient, IsThatOfDifferences) {
  RandomStream random(5, RandomPurpose::test);
  const auto leaf = [&](const Shape& shape) { return Variable::leaf(random_tensor(random, shape, DType::f64)); };
  const std::vector<Variable> all = {leaf({15, 18}), leaf({6, 1, 3}), leaf({6})};
  GradcheckResult result = gradcheck(
      [&](std::span<const Variable> in) {
        return std::vector<Variable>{short_conv(in[0], in[1], in[2], layout_of({4, 1, 10}))};
      },
      all);
  EXPECT_TRUE(result.passed) << result.report;
  result = gradcheck(
      [&](std::span<const Variable> in) { return std::vector<Variable>{short_conv(in[0], in[1], in[2], prefixes())}; },
      all);
  EXPECT_TRUE(result.passed) << result.report;
  result = gradcheck(  // frozen, and without a bias: the kernel gets no tensors for them
      [&](std::span<const Variable> in) {
        return std::vector<Variable>{short_conv(in[0], all[1].detach(), {}, layout_of({4, 1, 10}))};
      },
      std::span(all).first(1));
  EXPECT_TRUE(result.passed) << result.report;
}

TEST(ShortConvGradient, SharedRowsHaveTheBitsOfWholeSequences) {
  const NoGradScope no_grad;
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    RandomStream random(8, RandomPurpose::test);
    const auto make = [&](const Shape& shape) {
      return kernels::cast(random_tensor(random, shape, DType::f32), dtype);
    };
    const Tensor bcx = make({15, 48});
    const Variable weight(make({16, 1, 3}));
    const Tensor expected = repeated(short_conv(Variable(bcx), weight, {}, prefixes()).value());
    const Tensor whole = short_conv(Variable(repeated(bcx)), weight, {}, SequenceLayout::of(whole_lengths)).value();
    EXPECT_EQ(std::memcmp(expected.raw(), whole.raw(), static_cast<size_t>(expected.nbytes())), 0);
  }
}

}  // namespace
}  // namespace lathe::autograd::testing
