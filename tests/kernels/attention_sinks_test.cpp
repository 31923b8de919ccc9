#include "kernels/attention_sinks/attention_sinks.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"
#include "kernels/attention/attention.h"
#include "tests/kernels/attention_sinks_cases.h"
#include "tests/support/kernel_checks.h"

LATHE_CHECK_OPERATIONS(lathe::testing::attention_sinks_operations());

namespace lathe::kernels {
namespace {

constexpr int64_t tokens = 7, heads = 2, head_dim = 4;

Tensor random_f64(uint64_t seed, const Shape& shape) {
  RandomStream random(seed, RandomPurpose::test);
  const Tensor x = Tensor::empty(shape, DType::f64);
  for (double& element : x.span<double>()) element = random.normal();
  return x;
}

const double* row(const Tensor& x, int64_t token, int64_t head) {
  return x.data<double>() + (token * heads + head) * head_dim;
}

double dot(const double* a, const double* b) {
  double sum = 0;
  for (int64_t d = 0; d < head_dim; ++d) sum += a[d] * b[d];
  return sum;
}

// exp(score) of the keys that a query sees, and of the sink after them.
std::vector<double> weights(const Tensor& q, const Tensor& k, const Tensor& sinks, int64_t token, int64_t head) {
  std::vector<double> all;
  for (int64_t j = 0; j <= token; ++j) all.push_back(std::exp(dot(row(q, token, head), row(k, j, head))));
  all.push_back(std::exp(sinks.data<double>()[head]));
  return all;
}

double sum_of(const std::vector<double>& all) {
  double sum = 0;
  for (const double weight : all) sum += weight;
  return sum;
}

// The softmax over the keys and one more logit, written out. In f64 with sums of a few terms: 1e-13.
TEST(AttentionSinks, AfterAttentionAreASoftmaxWithOneMoreLogit) {
  const Shape shape{tokens, heads, head_dim};
  const Tensor q = random_f64(1, shape), k = random_f64(2, shape), v = random_f64(3, shape),
               sinks = random_f64(4, {heads});
  const Tensor out = Tensor::empty(shape, DType::f64), lse = Tensor::empty({heads, tokens}, DType::f64),
               lse_out = Tensor::empty({heads, tokens}, DType::f64);
  const Tensor bounds = Tensor::of<int32_t>(std::vector<int32_t>{0, tokens}, {2});
  attention_forward({.out = out, .lse = lse, .q = q, .k = k, .v = v, .cu_seqlens = bounds, .params = {}});
  attention_sinks(out, lse_out, out, lse, sinks);
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t h = 0; h < heads; ++h) {
      const std::vector<double> all = weights(q, k, sinks, t, h);
      const double sum = sum_of(all);
      EXPECT_NEAR(lse_out.data<double>()[h * tokens + t], std::log(sum), 1e-13);
      for (int64_t d = 0; d < head_dim; ++d) {
        double expected = 0;
        for (int64_t j = 0; j <= t; ++j) expected += all[static_cast<size_t>(j)] / sum * row(v, j, h)[d];
        EXPECT_NEAR(row(out, t, h)[d], expected, 1e-13);
      }
    }
}

TEST(AttentionSinks, ARowThatSawNoKeyStaysZero) {
  for (const float sink : {-50.0f, 0.0f, 90.0f}) {
    const Tensor x = Tensor::zeros({1, 1, 8}, DType::f32), lse = Tensor::zeros({1, 1}, DType::f32),
                 lse_out = Tensor::zeros({1, 1}, DType::f32), sinks = Tensor::zeros({1}, DType::f32);
    lse.data<float>()[0] = -INFINITY;
    sinks.data<float>()[0] = sink;
    attention_sinks(x, lse_out, x, lse, sinks);
    for (const float element : x.span<float>()) EXPECT_EQ(element, 0.0f);
    EXPECT_EQ(lse_out.data<float>()[0], sink);
  }
}

TEST(AttentionSinks, RefusesWhatDoesNotFit) {
  const Tensor x = Tensor::zeros({3, 2, 8}, DType::f32), lse = Tensor::zeros({2, 3}, DType::f32);
  const Tensor sinks = Tensor::zeros({2}, DType::f32);
  EXPECT_NO_THROW(attention_sinks(x, {}, x, lse, sinks));
  EXPECT_THROW(attention_sinks(x, {}, x, Tensor::zeros({3, 2}, DType::f32), sinks), ShapeError);
  EXPECT_THROW(attention_sinks(x, {}, x, {}, sinks), ShapeError);
  EXPECT_THROW(attention_sinks(x, {}, x, lse, Tensor::zeros({3}, DType::f32)), ShapeError);
  EXPECT_THROW(attention_sinks(x, {}, x, lse, Tensor::zeros({2}, DType::bf16)), ShapeError);
  EXPECT_THROW(attention_sinks(Tensor::zeros({3, 2, 7}, DType::f32), {}, x, lse, sinks), ShapeError);
  EXPECT_THROW(attention_sinks_backward(lse, lse, x, x, lse, sinks), ShapeError);
}

}  // namespace
}  // namespace lathe::kernels
