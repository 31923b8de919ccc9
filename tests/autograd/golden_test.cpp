// Operations in f64 against float64 PyTorch (tests/golden/kernels): outputs and every gradient.
#include <algorithm>

#include "autograd/ops/attention.h"
#include "autograd/ops/gated.h"
#include "autograd/ops/linear_cross_entropy.h"
#include "autograd/ops/rms_norm.h"
#include "autograd/ops/rope.h"
#include "tests/autograd/tensors.h"
#include "tests/support/golden.h"

namespace lathe::autograd::testing {
namespace {

using lathe::testing::golden_tensors;
using lathe::testing::GoldenTensors;

// Two computations in f64 that sum in different orders: some hundred roundings of 1e-16, values near one.
constexpr double tolerance = 1e-13;

void expect_near(const Tensor& got, const Tensor& want, const char* what, double bound = tolerance) {
  ASSERT_TRUE(got.defined()) << what;
  ASSERT_EQ(got.numel(), want.numel()) << what;
  const Tensor contiguous = got.clone();
  for (int64_t i = 0; i < want.numel(); ++i) {
    const double expected = want.span<double>()[static_cast<size_t>(i)];
    ASSERT_NEAR(contiguous.span<double>()[static_cast<size_t>(i)], expected, bound * (1 + std::abs(expected)))
        << what << ", element " << i;
  }
}

Tensor as_i32(const Tensor& tensor) {
  std::vector<int32_t> values;
  for (const int64_t value : tensor.span<int64_t>()) values.push_back(static_cast<int32_t>(value));
  return Tensor::of(std::span<const int32_t>(values), tensor.shape());
}

SequenceLayout layout_from(const Tensor& cu_seqlens) {
  std::vector<int32_t> lengths;
  const auto bounds = cu_seqlens.span<int32_t>();
  for (size_t s = 0; s + 1 < bounds.size(); ++s) lengths.push_back(bounds[s + 1] - bounds[s]);
  return SequenceLayout::of(lengths);
}

TEST(Golden, RmsNorm) {
  const GoldenTensors golden = golden_tensors("kernels/rms_norm.safetensors");
  const Variable x = Variable::leaf(golden.at("x")), weight = Variable::leaf(golden.at("weight"));
  // eps is a float: 1e-5f is off by 2.5e-13, and so are mean squares near one.
  constexpr double bound = 1e-12;
  const Variable y = rms_norm(x, weight, 1e-5f, layout_of({2, 3}));
  expect_near(y.value(), golden.at("y"), "y", bound);
  backward(y, golden.at("dy"));
  expect_near(x.grad(), golden.at("dx"), "dx", bound);
  expect_near(weight.grad(), golden.at("dweight"), "dweight", bound);
}

void expect_golden_gated(const std::string& name, Variable (*gated)(const Variable& gate, const Variable& up)) {
  const GoldenTensors golden = golden_tensors("kernels/gated.safetensors");
  const Variable gate = Variable::leaf(golden.at(name + ".gate")), up = Variable::leaf(golden.at(name + ".up"));
  const Variable y = gated(gate, up);
  expect_near(y.value(), golden.at(name + ".y"), "y");
  backward(y, golden.at(name + ".dy"));
  expect_near(gate.grad(), golden.at(name + ".dgate"), "dgate");
  expect_near(up.grad(), golden.at(name + ".dup"), "dup");
}

TEST(Golden, Swiglu) { expect_golden_gated("swiglu", swiglu); }
TEST(Golden, Geglu) { expect_golden_gated("geglu_tanh", geglu); }

TEST(Golden, Rope) {
  const GoldenTensors golden = golden_tensors("kernels/rope.safetensors");
  for (const std::string which : {"default", "llama3", "linear"}) {
    SCOPED_TRACE(which);
    SequenceLayout layout = layout_of({static_cast<int32_t>(golden.at("positions").numel())});
    // Row i of the tables is the angle of the i-th position, so that far positions need no long table.
    const Tensor inverse = golden.at(which + ".inv_freq"), positions = golden.at("positions");
    RopeTables tables{Tensor::empty({positions.numel(), inverse.numel()}, DType::f64), {}};
    tables.sin = tables.cos.clone();
    for (int64_t p = 0; p < positions.numel(); ++p) {
      for (int64_t d = 0; d < inverse.numel(); ++d) {
        const double angle = static_cast<double>(positions.data<int64_t>()[p]) * inverse.data<double>()[d];
        tables.cos.data<double>()[p * inverse.numel() + d] = std::cos(angle);
        tables.sin.data<double>()[p * inverse.numel() + d] = std::sin(angle);
      }
    }
    const Variable x = Variable::leaf(golden.at(which + ".x"));
    const Variable y = rope(x, tables, layout);
    // Angles reach 1e4 and are rounded to 1e-16 of themselves before the sine.
    expect_near(y.value(), golden.at(which + ".y"), "y", 1e-11);
    backward(y, golden.at(which + ".dy"));
    expect_near(x.grad(), golden.at(which + ".dx"), "dx", 1e-11);
  }
}

TEST(Golden, Attention) {
  const GoldenTensors golden = golden_tensors("kernels/attention.safetensors");
  for (const std::string which : {"causal", "window8", "soft_cap20"}) {
    SCOPED_TRACE(which);
    kernels::AttentionParams params;
    params.scale = 0.25f;
    if (which == "window8") params.window = 8;
    if (which == "soft_cap20") params.softcap = 20.0f;
    const Variable q = Variable::leaf(golden.at(which + ".q")), k = Variable::leaf(golden.at(which + ".k")),
                   v = Variable::leaf(golden.at(which + ".v"));
    const Variable out = attention(q, k, v, layout_from(golden.at("cu_seqlens")), params);
    expect_near(out.value(), golden.at(which + ".out"), "out");
    backward(out, golden.at(which + ".dout"));
    expect_near(q.grad(), golden.at(which + ".dq"), "dq");
    expect_near(k.grad(), golden.at(which + ".dk"), "dk");
    expect_near(v.grad(), golden.at(which + ".dv"), "dv");
  }
}

TEST(Golden, LinearCrossEntropy) {
  const GoldenTensors golden = golden_tensors("kernels/linear_cross_entropy.safetensors");
  const Tensor labels = as_i32(golden.at("labels"));
  const auto ids = labels.span<int32_t>();
  const auto valid = std::count_if(ids.begin(), ids.end(), [](int32_t label) { return label != -100; });
  const Variable hidden = Variable::leaf(golden.at("hidden")), weight = Variable::leaf(golden.at("weight"));
  const CrossEntropyResult result = linear_cross_entropy(
      hidden, weight, labels, layout_of({4, static_cast<int32_t>(ids.size()) - 4}), 1.0 / static_cast<double>(valid));
  expect_near(result.loss.value(), golden.at("loss"), "loss");
  const Tensor logprobs = golden.at("logprobs"), entropy = golden.at("entropy");
  for (size_t t = 0; t < ids.size(); ++t) {
    if (ids[t] == -100) continue;
    EXPECT_NEAR(result.token_loss.span<double>()[t], -logprobs.span<double>()[t], tolerance);
    EXPECT_NEAR(result.entropy.span<double>()[t], entropy.span<double>()[t], tolerance);
  }
  backward(result.loss);
  expect_near(hidden.grad(), golden.at("dhidden"), "dhidden");
  expect_near(weight.grad(), golden.at("dweight"), "dweight");
}

}  // namespace
}  // namespace lathe::autograd::testing
