#include "autograd/ops/mamba2.h"

#include "autograd/gradcheck.h"
#include "autograd/ops/gated.h"
#include "autograd/ops/rms_norm.h"
#include "autograd/recording.h"
#include "kernels/copy/copy.h"
#include "tests/autograd/shared_prefixes.h"
#include "tests/autograd/tensors.h"

namespace lathe::autograd::testing {
namespace {

TEST(Mamba2Gradient, IsThatOfDifferences) {
  RandomStream random(5, RandomPurpose::test);
  const auto leaf = [&](const Shape& shape) { return Variable::leaf(random_tensor(random, shape, DType::f64)); };
  const Mamba2Shape shape{{2, 1, 8, 8}};
  const std::vector<Variable> all = {leaf({15, 32}), leaf({15, 2}), leaf({2}), leaf({2}), leaf({2})};
  GradcheckResult result = gradcheck(
      [&](std::span<const Variable> in) {
        return std::vector<Variable>{mamba2(in[0], in[1], {in[2], in[3], in[4]}, shape, layout_of({4, 1, 10}))};
      },
      all);
  EXPECT_TRUE(result.passed) << result.report;
  result = gradcheck(
      [&](std::span<const Variable> in) {
        return std::vector<Variable>{mamba2(in[0], in[1], {in[2], in[3], in[4]}, shape, prefixes())};
      },
      all);
  EXPECT_TRUE(result.passed) << result.report;
  result = gradcheck(  // frozen: the kernel gets no tensors for them
      [&](std::span<const Variable> in) {
        const Mamba2Weights frozen{all[2].detach(), all[3].detach(), all[4].detach()};
        return std::vector<Variable>{mamba2(in[0], in[1], frozen, shape, layout_of({4, 1, 10}))};
      },
      std::span(all).first(2));
  EXPECT_TRUE(result.passed) << result.report;
}

// What follows in a layer: transformers' MambaRMSNormGated is a norm of what has been gated.
TEST(Mamba2Gradient, OfItsGatedNormIsThatOfDifferences) {
  RandomStream random(6, RandomPurpose::test);
  const auto leaf = [&](const Shape& shape) { return Variable::leaf(random_tensor(random, shape, DType::f64)); };
  const SequenceLayout layout = layout_of({2, 3});
  const std::vector<Variable> all = {leaf({5, 32}), leaf({5, 2}),  leaf({2}), leaf({2}),
                                     leaf({2}),     leaf({5, 16}), leaf({16})};
  const GradcheckResult result = gradcheck(
      [&](std::span<const Variable> in) {
        const Variable mixed = mamba2(in[0], in[1], {in[2], in[3], in[4]}, {{2, 1, 8, 8}}, layout);
        return std::vector<Variable>{rms_norm(swiglu(in[5], mixed), in[6], 1e-5f, layout)};
      },
      all);
  EXPECT_TRUE(result.passed) << result.report;
}

TEST(Mamba2Gradient, SharedRowsHaveTheBitsOfWholeSequences) {
  const NoGradScope no_grad;
  const Mamba2Shape shape{{2, 1, 8, 16}};
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    RandomStream random(8, RandomPurpose::test);
    const auto make = [&](const Shape& of) { return kernels::cast(random_tensor(random, of, DType::f32), dtype); };
    const Tensor xbc = make({15, 48}), dt = make({15, 2});
    const Mamba2Weights weights{Variable(make({2})), Variable(make({2})), Variable(make({2}))};
    const Tensor expected = repeated(mamba2(Variable(xbc), Variable(dt), weights, shape, prefixes()).value());
    const Tensor whole =
        mamba2(Variable(repeated(xbc)), Variable(repeated(dt)), weights, shape, SequenceLayout::of(whole_lengths))
            .value();
    EXPECT_TRUE(same_bits(expected, whole)) << name_of(dtype);
  }
}

// xbc and dt as columns of one projection, and weights of the rows' dtype, whose gradients are f32: those of the rows
// apart.
TEST(Mamba2Gradient, OfStridedRowsIsThatOfRowsApart) {
  RandomStream random(9, RandomPurpose::test);
  const auto make = [&](const Shape& shape) {
    return kernels::cast(random_tensor(random, shape, DType::f32), DType::bf16);
  };
  const Tensor joined = make({6, 50}), A_log = make({2}), D = make({2}), dt_bias = make({2}), grad_out = make({6, 16});
  const Tensor columns[] = {joined.slice(1, 0, 48), joined.slice(1, 48, 50)};
  const auto gradients = [&](const Tensor& xbc, const Tensor& dt) {
    const std::vector<Variable> leaves = {Variable::leaf(xbc), Variable::leaf(dt), Variable::leaf(A_log),
                                          Variable::leaf(D), Variable::leaf(dt_bias)};
    const Variable out =
        mamba2(leaves[0], leaves[1], {leaves[2], leaves[3], leaves[4]}, {{2, 1, 8, 16}}, layout_of({2, 4}));
    backward(out, grad_out);
    std::vector<unsigned char> result;
    for (const Variable& leaf : leaves) {
      const std::vector<unsigned char> bytes = bytes_of(leaf.grad());
      result.insert(result.end(), bytes.begin(), bytes.end());
    }
    return result;
  };
  EXPECT_EQ(gradients(columns[0], columns[1]),
            gradients(kernels::cast(columns[0], DType::bf16), kernels::cast(columns[1], DType::bf16)));
}

}  // namespace
}  // namespace lathe::autograd::testing
