#include "autograd/ops/shared_prefix_attention.h"

#include "autograd/gradcheck.h"
#include "autograd/ops/attention.h"
#include "autograd/recording.h"
#include "core/error.h"
#include "kernels/copy/copy.h"
#include "tests/autograd/tensors.h"

namespace lathe::autograd::testing {
namespace {

kernels::AttentionParams params_with(int64_t window = 0, float softcap = 0) {
  kernels::AttentionParams params;
  params.scale = 0.5f;
  params.window = window;
  params.softcap = softcap;
  return params;
}

// Of 3, 2 (which begins with 2 of the 3), 4, 1 and 5 (which begins with that 1) tokens in 15 rows.
SharedPrefixes prefixes() { return {layout_of({3, 2, 4, 1, 5}), {0, 2, 0, 0, 1}}; }
const std::vector<int64_t> whole_rows = {0, 1, 2, 0, 1, 3, 4, 5, 6, 7, 8, 9, 9, 10, 11, 12, 13, 14};
const std::vector<int32_t> whole_lengths = {3, 4, 4, 1, 6};

TEST(SharedPrefixAttention, GradientsAreThoseOfDifferences) {
  for (const auto& params : {params_with(), params_with(2), params_with(0, 1.5f)}) {
    RandomStream random(7, RandomPurpose::test);
    const auto leaf = [&](int64_t heads) { return Variable::leaf(random_tensor(random, {15, heads, 8}, DType::f64)); };
    const std::vector<Variable> inputs = {leaf(4), leaf(2), leaf(2)};
    const GradcheckResult result = gradcheck(
        [&](std::span<const Variable> in) {
          return std::vector<Variable>{shared_prefix_attention(in[0], in[1], in[2], prefixes(), params)};
        },
        inputs);
    EXPECT_TRUE(result.passed) << result.report;
  }
}

TEST(SharedPrefixAttention, GradientsOfSinksAreThoseOfDifferences) {
  RandomStream random(9, RandomPurpose::test);
  const auto leaf = [&](const Shape& shape) { return Variable::leaf(random_tensor(random, shape, DType::f64)); };
  const GradcheckResult result = gradcheck(
      [&](std::span<const Variable> in) {
        return std::vector<Variable>{shared_prefix_attention(in[0], in[1], in[2], prefixes(), params_with(2), in[3])};
      },
      {{leaf({15, 4, 8}), leaf({15, 2, 8}), leaf({15, 2, 8}), leaf({4})}});
  EXPECT_TRUE(result.passed) << result.report;
}

TEST(SharedPrefixAttention, RowsHaveTheBitsOfWholeSequences) {
  const NoGradScope no_grad;
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    RandomStream random(8, RandomPurpose::test);
    const auto rows = [&](int64_t heads) {
      return kernels::cast(random_tensor(random, {15, heads, 16}, DType::f32), dtype);
    };
    const Tensor q = rows(4), k = rows(2), v = rows(2);
    const auto repeated = [&](const Tensor& x) {
      const Tensor all = Tensor::empty({std::ssize(whole_rows), x.dim(1), x.dim(2)}, dtype);
      for (int64_t i = 0; i < all.dim(0); ++i) {
        const int64_t row = whole_rows[static_cast<size_t>(i)];
        kernels::copy(all.slice(0, i, i + 1), x.slice(0, row, row + 1));
      }
      return Variable(all);
    };
    for (const Variable& sinks : {Variable(), Variable(kernels::cast(random_tensor(random, {4}, DType::f32), dtype))}) {
      const Variable shared =
          shared_prefix_attention(Variable(q), Variable(k), Variable(v), prefixes(), params_with(), sinks);
      const Variable whole =
          attention(repeated(q), repeated(k), repeated(v), SequenceLayout::of(whole_lengths), params_with(), sinks);
      const Tensor expected = repeated(shared.value()).value();
      EXPECT_EQ(std::memcmp(expected.raw(), whole.value().raw(), static_cast<size_t>(expected.nbytes())), 0);
    }
  }
}

TEST(SharedPrefixAttention, APrefixMustBeTheOwnRowsOfTheSequenceBefore) {
  const Variable x(Tensor::zeros({5, 1, 8}, DType::f32));
  const auto attend = [&](std::vector<int32_t> lengths) {
    return shared_prefix_attention(x, x, x, {layout_of({2, 2, 1}), std::move(lengths)}, params_with());
  };
  EXPECT_NO_THROW(attend({0, 2, 0}));
  EXPECT_THROW(attend({0, 3, 0}), ShapeError) << "the first has two";
  EXPECT_THROW(attend({1, 0, 0}), ShapeError) << "nothing before it";
  EXPECT_THROW(attend({0, 1, 1}), ShapeError) << "the second is not whole";
  EXPECT_THROW(attend({0, 1}), ShapeError);
}

}  // namespace
}  // namespace lathe::autograd::testing
