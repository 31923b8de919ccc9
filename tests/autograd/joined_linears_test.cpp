// Linears of one input as one operation: the bits of linear() of each, forward and backward, and fewer launches.
#include "autograd/ops/joined_linears.h"

#include <gtest/gtest.h>

#include <map>
#include <optional>

#include "autograd/ops/arithmetic.h"
#include "core/error.h"
#include "kernels/copy/copy.h"
#include "kernels/cuda/queued_work.h"
#include "tests/autograd/tensors.h"
#include "tests/support/hopper.h"

namespace lathe::autograd::testing {
namespace {

constexpr Device cpu{}, simt{DeviceKind::simt, 0};
constexpr int64_t tokens = 70, width = 72, rank = 8;
constexpr int64_t outputs[] = {72, 24, 40};

Tensor on(Device device, const Tensor& tensor) { return kernels::moved(tensor, device); }

// What a run starts from, in memory of the CPU.
struct Given {
  Tensor x;
  Tensor weights[3], biases[3], a[3], b[3], cotangents[3];
};

Given given(DType dtype) {
  RandomStream random(11, RandomPurpose::test);
  Given made;
  made.x = random_tensor(random, {tokens, width}, dtype);
  for (int i = 0; i < 3; ++i) {
    made.weights[i] = random_tensor(random, {outputs[i], width}, dtype);
    made.biases[i] = random_tensor(random, {outputs[i]}, dtype);
    made.a[i] = random_tensor(random, {rank, width}, dtype);
    made.b[i] = random_tensor(random, {outputs[i], rank}, dtype);
    made.cotangents[i] = random_tensor(random, {tokens, outputs[i]}, dtype);
  }
  return made;
}

struct Options {
  bool terms[3] = {true, true, true};
  bool gradients_together = true;
  bool x_needs = true, x_is_made = true, last_flows = true;
  float dropout = 0.0f;

  kernels::DropoutParams dropout_of(int linear) const {
    if (dropout == 0.0f) return {};
    return {.probability = dropout, .seed = 9, .step = 4, .stream = static_cast<uint16_t>(6 + linear)};
  }
};

struct Leaves {
  Variable x, a[3], b[3];
};

Leaves leaves_of(const Given& g, Device device, const Options& options) {
  Leaves leaves;
  leaves.x = options.x_needs ? Variable::leaf(on(device, g.x)) : Variable(on(device, g.x));
  const Tensor all = Tensor::empty({3 * rank, width}, g.x.dtype(), device);
  const Tensor gradients = Tensor::zeros({3 * rank, width}, DType::f32, device);
  int64_t row = 0;
  for (int i = 0; i < 3; ++i) {
    if (!options.terms[i]) continue;
    const Tensor place = all.slice(0, row, row + rank);
    kernels::copy(place, on(device, g.a[i]));
    leaves.a[i] = Variable::leaf(place);
    if (options.gradients_together) leaves.a[i].set_grad(gradients.slice(0, row, row + rank));
    leaves.b[i] = Variable::leaf(on(device, g.b[i]));
    row += rank;
  }
  return leaves;
}

const SequenceLayout& layout() {
  static const SequenceLayout made = layout_of({30, 1, 39});
  return made;
}

std::vector<Variable> in_turn(const Given& g, const Leaves& leaves, Device device, const Options& options) {
  std::vector<Variable> outs;
  for (int i = 0; i < 3; ++i) {
    LinearTerms terms{.bias = Variable(on(device, g.biases[i])), .residual = {}, .lora = {}};
    if (leaves.a[i].defined()) terms.lora.push_back({leaves.a[i], leaves.b[i], 1.75f, options.dropout_of(i)});
    outs.push_back(linear(leaves.x, kernels::pack_weight(on(device, g.weights[i]), g.x.dtype()), layout(), terms));
  }
  return outs;
}

std::vector<Variable> joined(const Given& g, const Leaves& leaves, Device device, const Options& options) {
  std::vector<JoinedLinear> linears;
  for (int i = 0; i < 3; ++i)
    linears.push_back({kernels::pack_weight(on(device, g.weights[i]), g.x.dtype()), on(device, g.biases[i]),
                       leaves.a[i], leaves.b[i], options.dropout_of(i)});
  return joined_linears(leaves.x, linears, 1.75f, layout());
}

std::map<std::string, Tensor> results_of(const Given& g, Device device, const Options& options, bool as_one) {
  const Leaves leaves = leaves_of(g, device, options);
  Leaves inputs = leaves;
  // Of what an operation made, the sum is rounded after each linear; a leaf's is f32.
  if (options.x_is_made) inputs.x = scale(leaves.x, 1.0f);
  const std::vector<Variable> outs = as_one ? joined(g, inputs, device, options) : in_turn(g, inputs, device, options);
  const auto cotangent = [&](int i) { return on(device, g.cotangents[i]); };
  backward({{outs[0], cotangent(0)}, {outs[1], cotangent(1)}, {outs[2], options.last_flows ? cotangent(2) : Tensor()}});
  std::map<std::string, Tensor> results;
  const auto add = [&](const std::string& name, const Tensor& tensor) {
    if (tensor.defined()) results[name] = on(cpu, kernels::cast(tensor, tensor.dtype()));
  };
  if (options.x_needs) add("grad x", leaves.x.grad());
  for (int i = 0; i < 3; ++i) {
    const std::string number = std::to_string(i);
    add("y" + number, outs[static_cast<size_t>(i)].value());
    if (!leaves.a[i].defined() || (i == 2 && !options.last_flows)) continue;
    add("grad a" + number, leaves.a[i].grad());
    add("grad b" + number, leaves.b[i].grad());
  }
  return results;
}

void expect_the_bits_of_each(Device device, DType dtype, const Options& options) {
  const Given g = given(dtype);
  const auto expected = results_of(g, device, options, false), found = results_of(g, device, options, true);
  ASSERT_EQ(found.size(), expected.size());
  for (const auto& [name, tensor] : expected) EXPECT_TRUE(same_bits(found.at(name), tensor)) << name;
}

const std::vector<std::pair<std::string, Options>>& every_options() {
  static const std::vector<std::pair<std::string, Options>> all = {
      {"all", {}},
      {"two terms", {.terms = {true, false, true}}},
      {"gradients apart", {.gradients_together = false}},
      {"x needs none", {.x_needs = false}},
      {"x is a leaf", {.x_is_made = false}},
      {"an output that nobody uses", {.last_flows = false}},
      {"dropout", {.dropout = 0.25f}},
      {"dropout of two terms", {.terms = {true, false, true}, .gradients_together = false, .dropout = 0.25f}}};
  return all;
}

void expect_the_bits_with_all_options(Device device) {
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const auto& [name, options] : every_options()) {
      SCOPED_TRACE(std::string(name_of(dtype)) + ", " + name);
      expect_the_bits_of_each(device, dtype, options);
    }
}

TEST(JoinedLinears, HaveTheBitsOfEachOnTheCpu) { expect_the_bits_with_all_options(cpu); }
TEST(JoinedLinears, HaveTheBitsOfEachOnADevice) { expect_the_bits_with_all_options(simt); }
TEST(JoinedLinears, HaveTheBitsOfEachByWgmma) {
  const lathe::testing::Hopper hopper;
  for (const float dropout : {0.0f, 0.25f}) expect_the_bits_of_each(simt, DType::bf16, {.dropout = dropout});
}

struct LaunchCount final : kernels::QueuedWorkListener {
  int64_t launches = 0;
  void queued(const char*, int64_t blocks) override { launches += blocks > 0 ? 1 : 0; }
};

// x·A and the gradients of A, one each in place of three.
void expect_one_product_for_all_factors(const Options& options) {
  const Given g = given(DType::bf16);
  const Leaves leaves = leaves_of(g, simt, options);
  const auto forward = [&](bool as_one) {
    return as_one ? joined(g, leaves, simt, options) : in_turn(g, leaves, simt, options);
  };
  const auto launches = [&](bool as_one) {
    const std::vector<Variable> outs = forward(as_one);
    const Tensor cotangents[] = {on(simt, g.cotangents[0]), on(simt, g.cotangents[1]), on(simt, g.cotangents[2])};
    const LaunchCount count;
    backward({{outs[0], cotangents[0]}, {outs[1], cotangents[1]}, {outs[2], cotangents[2]}});
    return count.launches;
  };
  EXPECT_EQ(launches(false) - launches(true), 2);
  const LaunchCount forward_of_each;
  forward(false);
  const int64_t of_each = forward_of_each.launches;
  const LaunchCount forward_of_all;
  forward(true);
  EXPECT_EQ(of_each - forward_of_all.launches, 2);
}

TEST(JoinedLinears, LaunchOneProductForAllFactors) { expect_one_product_for_all_factors({}); }
TEST(JoinedLinears, LaunchOneProductForAllFactorsWithDropout) {
  expect_one_product_for_all_factors({.dropout = 0.25f});
}

TEST(JoinedLinears, RowsTogetherAreOneMatrixOnly) {
  const Tensor all = Tensor::zeros({6, 4}, DType::f32);
  const Tensor neighbours[] = {all.slice(0, 1, 3), all.slice(0, 3, 6)},
               apart[] = {all.slice(0, 0, 2), all.slice(0, 3, 6)}, turned[] = {all.slice(0, 3, 6), all.slice(0, 0, 3)},
               others[] = {all.slice(0, 0, 3), Tensor::zeros({3, 4}, DType::f32)},
               narrow[] = {all.slice(1, 0, 2), all.slice(1, 2, 4)};
  const Tensor found = rows_together(neighbours);
  ASSERT_TRUE(found.defined());
  EXPECT_EQ(found.shape(), Shape({5, 4}));
  EXPECT_EQ(found.raw(), neighbours[0].raw());
  for (const std::span<const Tensor> none :
       {std::span<const Tensor>(apart), std::span<const Tensor>(turned), std::span<const Tensor>(others),
        std::span<const Tensor>(narrow), std::span<const Tensor>()})
    EXPECT_FALSE(rows_together(none).defined());
}

TEST(JoinedLinears, RefuseFactorsThatLieApart) {
  const Given g = given(DType::f32);
  const Variable x(g.x);
  const JoinedLinear linears[] = {{Tensor(g.weights[0]), {}, Variable::leaf(g.a[0]), Variable::leaf(g.b[0])},
                                  {Tensor(g.weights[1]), {}, Variable::leaf(g.a[1]), Variable::leaf(g.b[1])}};
  EXPECT_THROW(joined_linears(x, linears, 1.0f, layout()), ShapeError);
}

}  // namespace
}  // namespace lathe::autograd::testing
