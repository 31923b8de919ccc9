#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "core/error.h"
#include "kernels/copy/copy.h"
#include "tests/kernels/attention_cases.h"
#include "tests/support/golden.h"
#include "tests/support/kernel_checks.h"

LATHE_CHECK_OPERATIONS(lathe::testing::attention_operations());

namespace lathe::kernels {
namespace {

Tensor i32(std::vector<int32_t> values) { return Tensor::of<int32_t>(values, {static_cast<int64_t>(values.size())}); }

Tensor f64_like(const Tensor& x) { return Tensor::empty(x.shape(), DType::f64); }

// Both sides compute in f64, in other orders: sums of up to 40 numbers below 10, rounded 40 times.
constexpr double golden_tolerance = 40 * 10 * std::numeric_limits<double>::epsilon();

void expect_near(const Tensor& found, const Tensor& wanted, const std::string& name) {
  const auto a = found.span<double>(), b = wanted.span<double>();
  ASSERT_EQ(a.size(), b.size()) << name;
  for (size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], golden_tolerance) << name << " at " << i;
}

TEST(AttentionGolden, EqualsFloat64PyTorch) {
  auto golden = lathe::testing::golden_tensors("kernels/attention.safetensors");
  const Tensor cu_seqlens = golden["cu_seqlens"];
  struct Mask {
    const char* name;
    AttentionParams params;
  };
  for (const Mask& mask : {Mask{"causal", {.scale = 0.25f}}, Mask{"window8", {.scale = 0.25f, .window = 8}},
                           Mask{"soft_cap20", {.scale = 0.25f, .softcap = 20.0f}}}) {
    const auto at = [&](const char* tensor) { return golden[std::string(mask.name) + "." + tensor]; };
    const Tensor q = at("q"), k = at("k"), v = at("v"), out = f64_like(q);
    const Tensor lse = Tensor::empty({q.dim(1), q.dim(0)}, DType::f64);
    attention_forward(
        {.out = out, .lse = lse, .q = q, .k = k, .v = v, .cu_seqlens = cu_seqlens, .params = mask.params});
    expect_near(out, at("out"), std::string(mask.name) + ".out");
    expect_near(lse.transpose(0, 1).clone(), at("lse"), std::string(mask.name) + ".lse");

    const Tensor grad_q = f64_like(q), grad_k = f64_like(k), grad_v = f64_like(v);
    attention_backward({.grad_q = grad_q,
                        .grad_k = grad_k,
                        .grad_v = grad_v,
                        .grad_out = at("dout"),
                        .q = q,
                        .k = k,
                        .v = v,
                        .out = out,
                        .lse = lse,
                        .cu_seqlens = cu_seqlens,
                        .params = mask.params});
    expect_near(grad_q, at("dq"), std::string(mask.name) + ".dq");
    expect_near(grad_k, at("dk"), std::string(mask.name) + ".dk");
    expect_near(grad_v, at("dv"), std::string(mask.name) + ".dv");
  }
}

TEST(Attention, ScoresOfAnyFiniteSizeGiveFiniteResults) {
  // Scores of ±10⁶ put all weight on one key: exp() of what lies below is 0, and nothing overflows.
  const Tensor q = Tensor::empty({70, 1, 16}, DType::f32), k = Tensor::empty(q.shape(), DType::f32);
  const Tensor v = Tensor::empty(q.shape(), DType::f32), out = Tensor::empty(q.shape(), DType::f32);
  const Tensor lse = Tensor::empty({1, 70}, DType::f32);
  for (int64_t t = 0; t < 70; ++t) {
    for (int64_t d = 0; d < 16; ++d) {
      q.data<float>()[t * 16 + d] = 1000.0f;
      k.data<float>()[t * 16 + d] = t == 3 || t < 3 ? 62.5f * static_cast<float>(t - 2) : -62.5f;
      v.data<float>()[t * 16 + d] = static_cast<float>(t);
    }
  }
  attention_forward({.out = out, .lse = lse, .q = q, .k = k, .v = v, .cu_seqlens = i32({0, 70})});
  for (int64_t t = 0; t < 70; ++t) {
    const auto best = static_cast<float>(std::min<int64_t>(t, 3));
    EXPECT_EQ(out.data<float>()[t * 16], best) << "token " << t;
    EXPECT_EQ(lse.data<float>()[t], 1e6f * (best - 2)) << "token " << t;
  }
}

TEST(Attention, ANumberThatIsNoneShows) {
  const Tensor q = Tensor::zeros({70, 1, 16}, DType::f32), out = Tensor::zeros({70, 1, 16}, DType::f32);
  const Tensor bad = Tensor::zeros({70, 1, 16}, DType::f32);
  bad.data<float>()[65 * 16 + 3] = std::numeric_limits<float>::quiet_NaN();
  attention_forward({.out = out, .q = bad, .k = q, .v = q, .cu_seqlens = i32({0, 70})});
  EXPECT_TRUE(std::isnan(out.data<float>()[65 * 16])) << "a query";
  EXPECT_FALSE(std::isnan(out.data<float>()[64 * 16])) << "the row before it";
  attention_forward({.out = out, .q = q, .k = bad, .v = q, .cu_seqlens = i32({0, 70})});
  EXPECT_TRUE(std::isnan(out.data<float>()[69 * 16])) << "a key, and a later query";
  EXPECT_FALSE(std::isnan(out.data<float>()[64 * 16])) << "a key, and an earlier query";
}

// A valid call, to be spoilt one argument at a time.
AttentionForward valid_call() {
  return {.out = Tensor::zeros({5, 4, 8}, DType::f32),
          .lse = Tensor::zeros({4, 5}, DType::f32),
          .q = Tensor::zeros({5, 4, 8}, DType::f32),
          .k = Tensor::zeros({5, 2, 8}, DType::f32),
          .v = Tensor::zeros({5, 2, 8}, DType::f32),
          .cu_seqlens = i32({0, 2, 5})};
}

template <class Change>
void expect_rejected(const char* what, Change change) {
  AttentionForward call = valid_call();
  change(call);
  EXPECT_THROW(attention_forward(call), ShapeError) << what;
}

TEST(Attention, RejectsWhatDoesNotFit) {
  EXPECT_NO_THROW(attention_forward(valid_call()));
  expect_rejected("heads that are no multiple", [](AttentionForward& c) {
    c.k = c.v = Tensor::zeros({5, 3, 8}, DType::f32);
  });
  expect_rejected("no kv heads", [](AttentionForward& c) { c.k = c.v = Tensor::zeros({5, 0, 8}, DType::f32); });
  expect_rejected("fewer keys than queries", [](AttentionForward& c) { c.k = Tensor::zeros({4, 2, 8}, DType::f32); });
  expect_rejected("another head size", [](AttentionForward& c) { c.v = Tensor::zeros({5, 2, 4}, DType::f32); });
  expect_rejected("another dtype", [](AttentionForward& c) { c.v = Tensor::zeros({5, 2, 8}, DType::bf16); });
  expect_rejected("integers", [](AttentionForward& c) { c.q = Tensor::zeros({5, 4, 8}, DType::i32); });
  expect_rejected("a strided last dimension", [](AttentionForward& c) {
    c.q = Tensor::zeros({5, 8, 4}, DType::f32).transpose(1, 2);
  });
  expect_rejected("out of another shape", [](AttentionForward& c) { c.out = Tensor::zeros({5, 2, 8}, DType::f32); });
  expect_rejected("lse the other way round", [](AttentionForward& c) { c.lse = Tensor::zeros({5, 4}, DType::f32); });
  expect_rejected("cu_seqlens that ends early", [](AttentionForward& c) { c.cu_seqlens = i32({0, 2}); });
  expect_rejected("cu_seqlens that falls", [](AttentionForward& c) { c.cu_seqlens = i32({0, 6, 5}); });
  expect_rejected("a negative window", [](AttentionForward& c) { c.params.window = -1; });
  expect_rejected("a scale of zero", [](AttentionForward& c) { c.params.scale = 0; });
  expect_rejected("a softcap that is no number", [](AttentionForward& c) { c.params.softcap = NAN; });
  expect_rejected("an undefined input", [](AttentionForward& c) { c.k = Tensor{}; });
}

// More sequences than the arguments of one kernel hold (kernels/attention/cuda/sequences.cuh).
TEST(Attention, SequencesOfOneTokenOnSimtAnswerTheirValues) {
  constexpr int64_t tokens = 402;
  std::vector<int32_t> bounds(tokens + 1);
  for (size_t i = 0; i < bounds.size(); ++i) bounds[i] = static_cast<int32_t>(i);
  std::vector<float> values(tokens * 4);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  const Device simt{DeviceKind::simt};
  const Tensor v = Tensor::of<float>(values, {tokens, 1, 4}), on_simt = Tensor::empty(v.shape(), v.dtype(), simt);
  copy(on_simt, v);
  const Tensor out_on_simt = Tensor::empty(v.shape(), v.dtype(), simt), out = Tensor::empty(v.shape(), v.dtype());
  attention_forward({.out = out_on_simt, .q = on_simt, .k = on_simt, .v = on_simt, .cu_seqlens = i32(bounds)});
  copy(out, out_on_simt);
  // The only key's weight is 2 to the power of what rounding left of its score, and divided out again.
  for (size_t i = 0; i < values.size(); ++i) ASSERT_FLOAT_EQ(out.span<float>()[i], values[i]) << i;
}

TEST(Attention, NoTokensIsNoWork) {
  const Tensor none = Tensor::zeros({0, 2, 8}, DType::f32), lse = Tensor::zeros({2, 0}, DType::f32);
  const Tensor bounds = i32({0, 0});
  EXPECT_NO_THROW(attention_forward({.out = none, .lse = lse, .q = none, .k = none, .v = none, .cu_seqlens = bounds}));
  EXPECT_NO_THROW(attention_backward({.grad_q = none,
                                      .grad_k = none,
                                      .grad_v = none,
                                      .grad_out = none,
                                      .q = none,
                                      .k = none,
                                      .v = none,
                                      .out = none,
                                      .lse = lse,
                                      .cu_seqlens = bounds}));
}

}  // namespace
}  // namespace lathe::kernels
