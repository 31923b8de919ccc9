// swiglu, geglu, the clamped swiglu and glu: against the f64 reference on every device and instruction set, PyTorch's
// answers, and what it must refuse.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>

#include "core/error.h"
#include "tests/kernels/gated_cases.h"
#include "tests/support/golden.h"
#include "tests/support/kernel_checks.h"

namespace lathe::testing {
namespace {

LATHE_CHECK_OPERATIONS(gated_operations());

// Both sides compute in f64 with a handful of roundings on values below 10.
void expect_close(const Tensor& found, const Tensor& expected) {
  for (int64_t i = 0; i < expected.numel(); ++i)
    EXPECT_NEAR(found.data<double>()[i], expected.data<double>()[i], 1e-14) << i;
}

void expect_golden(const std::string& name, gated_cases::Functions functions,
                   const std::string& file = "kernels/gated.safetensors") {
  auto golden = golden_tensors(file);
  const Tensor &gate = golden[name + ".gate"], &up = golden[name + ".up"];
  const Tensor out = Tensor::empty(gate.shape(), DType::f64);
  functions.forward(out, gate, up);
  expect_close(out, golden[name + ".y"]);
  const Tensor grad_gate = Tensor::empty(gate.shape(), DType::f64), grad_up = Tensor::empty(gate.shape(), DType::f64);
  functions.backward(grad_gate, grad_up, golden[name + ".dy"], gate, up);
  expect_close(grad_gate, golden[name + ".dgate"]);
  expect_close(grad_up, golden[name + ".dup"]);
}

TEST(Gated, SwigluAnswersAsPyTorchInDouble) {
  expect_golden("swiglu", {kernels::swiglu_forward, kernels::swiglu_backward});
}
TEST(Gated, GegluAnswersAsPyTorchInDouble) {
  expect_golden("geglu_tanh", {kernels::geglu_forward, kernels::geglu_backward});
}
// Half of its values are beyond the limits.
TEST(Gated, ClampedSwigluAnswersAsPyTorchInDouble) {
  expect_golden("clamped_swiglu", {kernels::clamped_swiglu_forward, kernels::clamped_swiglu_backward});
}
TEST(Gated, GluAnswersAsPyTorchInDouble) {
  expect_golden("glu", {kernels::glu_forward, kernels::glu_backward}, "kernels/glu.safetensors");
}

TEST(Gated, HalvesOfOneTensorAreItsGateAndUp) {
  const Tensor both = Tensor::empty({3, 40}, DType::f32);
  RandomStream random(5, RandomPurpose::test);
  for (float& x : both.span<float>()) x = random.normal();
  const Tensor gate = both.slice(1, 0, 20), up = both.slice(1, 20, 40);
  const Tensor out = Tensor::empty({3, 20}, DType::f32), expected = Tensor::empty({3, 20}, DType::f32);
  kernels::swiglu_forward(out, gate, up);
  kernels::swiglu_forward(expected, gate.clone(), up.clone());
  EXPECT_EQ(std::memcmp(out.raw(), expected.raw(), static_cast<size_t>(out.nbytes())), 0);
}

TEST(Gated, NaNGoesThroughAndInfinityBehavesAsTheFormula) {
  const float gate_values[] = {NAN, 1.0f, INFINITY}, up_values[] = {1.0f, NAN, 2.0f};
  const Tensor gate = Tensor::of<float>(gate_values, {1, 3}), up = Tensor::of<float>(up_values, {1, 3});
  for (const auto forward : {kernels::swiglu_forward, kernels::geglu_forward}) {
    const Tensor out = Tensor::empty({1, 3}, DType::f32);
    forward(out, gate, up);
    EXPECT_TRUE(std::isnan(out.data<float>()[0]));
    EXPECT_TRUE(std::isnan(out.data<float>()[1]));
    EXPECT_EQ(out.data<float>()[2], INFINITY);
  }
  const Tensor gated = Tensor::empty({1, 3}, DType::f32);
  kernels::glu_forward(gated, gate, up);
  EXPECT_TRUE(std::isnan(gated.data<float>()[0]));
  EXPECT_TRUE(std::isnan(gated.data<float>()[1]));
  EXPECT_EQ(gated.data<float>()[2], 2.0f);
  const Tensor clamped = Tensor::empty({1, 3}, DType::f32);
  kernels::clamped_swiglu_forward(clamped, gate, up);
  EXPECT_TRUE(std::isnan(clamped.data<float>()[0]));
  EXPECT_TRUE(std::isnan(clamped.data<float>()[1]));
  EXPECT_NEAR(clamped.data<float>()[2], 7.0f * 3.0f, 1e-3f);
}

TEST(Gated, RefusesShapesAndDtypesThatDoNotFit) {
  const Tensor gate = Tensor::zeros({2, 8}, DType::f32), out = Tensor::zeros({2, 8}, DType::f32);
  EXPECT_THROW(kernels::swiglu_forward(out, gate, Tensor::zeros({2, 9}, DType::f32)), ShapeError);
  EXPECT_THROW(kernels::swiglu_forward(out, gate, Tensor::zeros({2, 8}, DType::bf16)), ShapeError);
  EXPECT_THROW(kernels::swiglu_forward(out, gate, Tensor{}), ShapeError);
  EXPECT_THROW(kernels::swiglu_forward(Tensor::zeros({16}, DType::f32), gate, gate), ShapeError);
  const Tensor turned = Tensor::zeros({8, 2}, DType::f32).transpose(0, 1);
  EXPECT_THROW(kernels::swiglu_forward(out, gate, turned), ShapeError);
  try {
    kernels::swiglu_backward(out, out, Tensor::zeros({3, 8}, DType::f32), gate, gate);
    FAIL() << "a gradient of another shape was taken";
  } catch (const ShapeError& error) {
    EXPECT_STREQ(error.what(), "swiglu_backward: grad_out expects shape [2, 8], found f32[3, 8] on cpu");
  }
}

}  // namespace
}  // namespace lathe::testing
