#include "autograd/ops/shared_prefix_attention.h"

#include "autograd/gradcheck.h"
#include "autograd/ops/attention.h"
#include "autograd/recording.h"
#include "core/error.h"
#include "kernels/copy/copy.h"
#include "tests/autograd/shared_prefixes.h"
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
    const auto whole_of = [](const Tensor& x) { return Variable(repeated(x)); };
    for (const Variable& sinks : {Variable(), Variable(kernels::cast(random_tensor(random, {4}, DType::f32), dtype))}) {
      const Variable shared =
          shared_prefix_attention(Variable(q), Variable(k), Variable(v), prefixes(), params_with(), sinks);
      const Variable whole =
          attention(whole_of(q), whole_of(k), whole_of(v), SequenceLayout::of(whole_lengths), params_with(), sinks);
      const Tensor expected = repeated(shared.value());
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
