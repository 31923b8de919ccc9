#include "autograd/ops/gated_delta.h"

#include "autograd/gradcheck.h"
#include "autograd/recording.h"
#include "kernels/copy/copy.h"
#include "tests/autograd/shared_prefixes.h"
#include "tests/autograd/tensors.h"

namespace lathe::autograd::testing {
namespace {

TEST(GatedDeltaGradient, IsThatOfDifferences) {
  RandomStream random(5, RandomPurpose::test);
  const auto leaf = [&](const Shape& shape) { return Variable::leaf(random_tensor(random, shape, DType::f64)); };
  const kernels::GatedDeltaHeads heads{1, 2, 8, 8};
  const std::vector<Variable> all = {leaf({15, 32}), leaf({15, 2}), leaf({15, 2}), leaf({2}), leaf({2})};
  GradcheckResult result = gradcheck(
      [&](std::span<const Variable> in) {
        return std::vector<Variable>{gated_delta(in[0], in[1], in[2], in[3], in[4], heads, layout_of({4, 1, 10}))};
      },
      all);
  EXPECT_TRUE(result.passed) << result.report;
  result = gradcheck(
      [&](std::span<const Variable> in) {
        return std::vector<Variable>{gated_delta(in[0], in[1], in[2], in[3], in[4], heads, prefixes())};
      },
      all);
  EXPECT_TRUE(result.passed) << result.report;
  result = gradcheck(  // frozen: the kernel gets no tensors for them
      [&](std::span<const Variable> in) {
        return std::vector<Variable>{
            gated_delta(in[0], in[1], in[2], all[3].detach(), all[4].detach(), heads, layout_of({4, 1, 10}))};
      },
      std::span(all).first(3));
  EXPECT_TRUE(result.passed) << result.report;
}

TEST(GatedDeltaGradient, SharedRowsHaveTheBitsOfWholeSequences) {
  const NoGradScope no_grad;
  const kernels::GatedDeltaHeads heads{1, 2, 16, 8};
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    RandomStream random(8, RandomPurpose::test);
    const auto make = [&](const Shape& shape) {
      return kernels::cast(random_tensor(random, shape, DType::f32), dtype);
    };
    const Tensor qkv = make({15, 48}), a = make({15, 2}), b = make({15, 2});
    const Variable A_log(make({2})), dt_bias(make({2}));
    const Tensor expected =
        repeated(gated_delta(Variable(qkv), Variable(a), Variable(b), A_log, dt_bias, heads, prefixes()).value());
    const Tensor whole = gated_delta(Variable(repeated(qkv)), Variable(repeated(a)), Variable(repeated(b)), A_log,
                                     dt_bias, heads, SequenceLayout::of(whole_lengths))
                             .value();
    EXPECT_TRUE(same_bits(expected, whole)) << name_of(dtype);
  }
}

// a and b as columns of one projection, and weights of the rows' dtype, whose gradients are f32: those of the rows
// apart.
TEST(GatedDeltaGradient, OfStridedRowsIsThatOfRowsApart) {
  const kernels::GatedDeltaHeads heads{1, 2, 8, 16};
  RandomStream random(9, RandomPurpose::test);
  const auto make = [&](const Shape& shape) {
    return kernels::cast(random_tensor(random, shape, DType::f32), DType::bf16);
  };
  const Tensor qkv = make({6, 48}), joined = make({6, 4}), A_log = make({2}), dt_bias = make({2}),
               grad_out = make({6, 32});
  const Tensor columns[] = {joined.slice(1, 0, 2), joined.slice(1, 2, 4)};
  const auto gradients = [&](const Tensor& a, const Tensor& b) {
    const std::vector<Variable> leaves = {Variable::leaf(qkv), Variable::leaf(a), Variable::leaf(b),
                                          Variable::leaf(A_log), Variable::leaf(dt_bias)};
    const Variable out = gated_delta(leaves[0], leaves[1], leaves[2], leaves[3], leaves[4], heads, layout_of({2, 4}));
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
