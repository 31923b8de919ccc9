// causal_conv: against the f64 reference on every device and instruction set, transformers' answers, steps against
// whole sequences, and what it must refuse.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "core/error.h"
#include "core/random.h"
#include "kernels/copy/copy.h"
#include "kernels/cuda/graph.h"
#include "kernels/cuda/runtime.h"
#include "tests/kernels/causal_conv_cases.h"
#include "tests/kernels/every_device.h"
#include "tests/support/golden.h"
#include "tests/support/kernel_checks.h"

namespace lathe::kernels {

LATHE_CHECK_OPERATIONS(lathe::testing::causal_conv_operations());

namespace {

constexpr int64_t columns = 40;

Tensor numbers(const std::vector<int32_t>& values, const Shape& shape) { return Tensor::of<int32_t>(values, shape); }

// One sequence's step: so many new tokens of `context` in all. Pages are of no account.
PagedBatch one_sequence(int32_t tokens, int32_t context, int32_t slot, Device device) {
  return {numbers({0, tokens}, {2}), numbers({context}, {1}), numbers({0}, {1, 1}), {1, 1 << 20, device}, {},
          numbers({slot}, {1})};
}

using CausalConv = OnEveryDevice;

INSTANTIATE_TEST_SUITE_P(, CausalConv, every_device(), name_of_device);

// As a prompt and its answer come, and in chunks shorter and longer than what the state holds: the bits of the whole
// sequence, whatever the slot held before; and the state is x's last rows.
TEST_P(CausalConv, StepsHaveTheBitsOfWholeSequences) {
  const std::vector<std::vector<int32_t>> cuts = {
      {23}, {1, 1, 1, 20}, {2, 2, 2, 1, 16}, {10, 1, 1, 1, 1, 9}, {7, 8, 8}};
  const int32_t tokens = 23, slot = 2;
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    for (const int64_t taps : {int64_t{1}, int64_t{2}, int64_t{4}, int64_t{8}}) {
      const Tensor x = random({tokens, columns}, dtype), weight = random({columns, taps}, dtype),
                   bias = random({columns}, dtype);
      const Tensor expected = Tensor::empty({tokens, columns}, dtype, device());
      causal_conv_forward(expected, x, weight, bias, numbers({0, tokens}, {2}));
      for (const std::vector<int32_t>& cut : cuts) {
        SCOPED_TRACE(std::string(name_of(dtype)) + ", " + std::to_string(taps) + " taps, " +
                     std::to_string(cut.size()) + " steps");
        const Tensor states = random({4, taps - 1, columns}, dtype),
                     out = Tensor::empty({tokens, columns}, dtype, device());
        const std::vector<std::byte> before = bytes(states.slice(0, 0, slot)),
                                     after = bytes(states.slice(0, slot + 1, 4));
        int32_t done = 0;
        for (const int32_t count : cut) {
          causal_conv_step(out.slice(0, done, done + count), states, x.slice(0, done, done + count), weight, bias,
                           one_sequence(count, done + count, slot, device()));
          done += count;
        }
        EXPECT_EQ(bytes(out), bytes(expected));
        EXPECT_EQ(bytes(states.slice(0, slot, slot + 1)), bytes(x.slice(0, tokens - taps + 1, tokens)));
        EXPECT_EQ(bytes(states.slice(0, 0, slot)), before);
        EXPECT_EQ(bytes(states.slice(0, slot + 1, 4)), after);
      }
    }
  }
}

// A sequence that has fewer rows than the state holds is told so: zeros stand before them.
TEST_P(CausalConv, AStateThatBeginsHasZerosBeforeItsRows) {
  const Tensor x = random({2, columns}, DType::bf16), weight = random({columns, 4}, DType::bf16),
               states = random({1, 3, columns}, DType::bf16), out = Tensor::empty({2, columns}, DType::bf16, device());
  causal_conv_step(out, states, x, weight, {}, one_sequence(2, 2, 0, device()));
  const Tensor rows = states.view({3, columns});
  EXPECT_EQ(bytes(rows.slice(0, 0, 1)), std::vector<std::byte>(2 * columns));
  EXPECT_EQ(bytes(rows.slice(0, 1, 3)), bytes(x));
}

// Packed sequences of one step, each with a slot of its own, beside one without new tokens.
TEST_P(CausalConv, SequencesOfAStepHaveTheirOwnStates) {
  const Tensor x = random({9, columns}, DType::f32), weight = random({columns, 4}, DType::f32);
  const Tensor expected = Tensor::empty({9, columns}, DType::f32, device()),
               out = Tensor::empty({9, columns}, DType::f32, device());
  causal_conv_forward(expected, x, weight, {}, numbers({0, 4, 9}, {3}));
  const Tensor states = random({3, 3, columns}, DType::f32);
  // Rows 0 to 2 and 4 to 7, and then 3 and 8, which lie one after the other.
  const auto run = [&](const Tensor& to, const Tensor& from, const std::vector<int32_t>& bounds,
                       const std::vector<int32_t>& contexts) {
    const PagedBatch batch(numbers(bounds, {4}), numbers(contexts, {3}), numbers({0, 0, 0}, {3, 1}),
                           {1, 1 << 20, device()}, {}, numbers({2, -1, 1}, {3}));
    causal_conv_step(to, states, from, weight, {}, batch);
  };
  const auto gather = [&](const std::vector<int64_t>& rows) {
    const Tensor all = Tensor::empty({static_cast<int64_t>(rows.size()), columns}, DType::f32, device());
    for (size_t i = 0; i < rows.size(); ++i)
      copy(all.slice(0, static_cast<int64_t>(i), static_cast<int64_t>(i) + 1), x.slice(0, rows[i], rows[i] + 1));
    return all;
  };
  const Tensor first = Tensor::empty({7, columns}, DType::f32, device()),
               second = Tensor::empty({2, columns}, DType::f32, device());
  run(first, gather({0, 1, 2, 4, 5, 6, 7}), {0, 3, 3, 7}, {3, 9, 4});
  run(second, gather({3, 8}), {0, 1, 1, 2}, {4, 9, 5});
  copy(out.slice(0, 0, 3), first.slice(0, 0, 3));
  copy(out.slice(0, 4, 8), first.slice(0, 3, 7));
  copy(out.slice(0, 3, 4), second.slice(0, 0, 1));
  copy(out.slice(0, 8, 9), second.slice(0, 1, 2));
  EXPECT_EQ(bytes(out), bytes(expected));
}

// A decoding step's kernel reads all that changes from step to step where the batch's numbers lie.
TEST_P(CausalConv, AReplayedStepHasTheBitsOfWholeSequences) {
  const int32_t tokens = 9, first = 3;
  const Tensor x = random({2 * tokens, columns}, DType::bf16), weight = random({columns, 4}, DType::bf16),
               states = random({2, 3, columns}, DType::bf16);
  const Tensor expected = Tensor::empty(x.shape(), DType::bf16, device());
  causal_conv_forward(expected, x, weight, {}, numbers({0, tokens, 2 * tokens}, {3}));
  // The second sequence is three tokens ahead.
  const Tensor ahead = Tensor::empty({first, columns}, DType::bf16, device());
  causal_conv_step(ahead, states, x.slice(0, tokens, tokens + first), weight, {},
                   one_sequence(first, first, 0, device()));
  const Tensor there = Tensor::empty({PagedBatch::number_count(2, 2, 1)}, DType::i32, device()),
               rows = Tensor::empty({2, columns}, DType::bf16, device()),
               out = Tensor::empty({2, columns}, DType::bf16, device());
  DeviceGraph graph(device());
  for (int32_t t = 0; t + first < tokens; ++t) {
    const PagedBatch batch(numbers({0, 1, 2}, {3}), numbers({t + 1, t + first + 1}, {2}), numbers({0, 0}, {2, 1}),
                           {1, 1 << 20, device()}, there, numbers({1, 0}, {2}));
    copy_bytes(device(), there.raw(), {}, batch.numbers().data(), there.nbytes());
    copy(rows.slice(0, 0, 1), x.slice(0, t, t + 1));
    copy(rows.slice(0, 1, 2), x.slice(0, tokens + t + first, tokens + t + first + 1));
    const auto step = [&] { causal_conv_step(out, states, rows, weight, {}, batch); };
    t == 0 || device().kind == DeviceKind::cpu ? graph.run(step) : graph.replay();
    synchronize(device());
    EXPECT_EQ(bytes(out.slice(0, 0, 1)), bytes(expected.slice(0, t, t + 1))) << t;
    EXPECT_EQ(bytes(out.slice(0, 1, 2)), bytes(expected.slice(0, tokens + t + first, tokens + t + first + 1))) << t;
  }
}

// Both sides compute in f64 with a handful of roundings on values below 10.
void expect_close(const Tensor& found, const Tensor& expected) {
  for (int64_t i = 0; i < expected.numel(); ++i)
    EXPECT_NEAR(found.data<double>()[i], expected.data<double>()[i], 1e-14) << i;
}

TEST(CausalConvGolden, AnswersAsTransformersInDouble) {
  auto golden = testing::golden_tensors("kernels/causal_conv.safetensors");
  const Tensor& bounds = golden["cu_seqlens"];
  for (const std::string name : {"plain4", "biased3"}) {
    SCOPED_TRACE(name);
    const Tensor &x = golden[name + ".x"], &weight = golden[name + ".weight"], &bias = golden[name + ".bias"];
    const Tensor out = Tensor::empty(x.shape(), DType::f64), grad_x = Tensor::empty(x.shape(), DType::f64),
                 grad_weight = Tensor::zeros(weight.shape(), DType::f64),
                 grad_bias = bias.defined() ? Tensor::zeros(bias.shape(), DType::f64) : Tensor{};
    causal_conv_forward(out, x, weight, bias, bounds);
    expect_close(out, golden[name + ".y"]);
    causal_conv_backward(grad_x, grad_weight, grad_bias, golden[name + ".dy"], x, weight, bias, bounds);
    expect_close(grad_x, golden[name + ".dx"]);
    expect_close(grad_weight, golden[name + ".dweight"]);
    if (bias.defined()) expect_close(grad_bias, golden[name + ".dbias"]);

    const Tensor states = Tensor::empty({1, weight.dim(1) - 1, x.dim(1)}, DType::f64), last = x.slice(0, 3, 12),
                 steps = Tensor::empty(last.shape(), DType::f64);
    int32_t done = 0;
    for (const int32_t count : {2, 1, 6}) {
      causal_conv_step(steps.slice(0, done, done + count), states, last.slice(0, done, done + count), weight, bias,
                       one_sequence(count, done + count, 0, {}));
      done += count;
    }
    expect_close(steps, golden[name + ".steps"]);
    expect_close(states, golden[name + ".state"]);
  }
}

TEST(CausalConvChecks, RefusesWhatDoesNotFit) {
  const auto zeros = [](const Shape& shape, DType dtype = DType::f32) { return Tensor::zeros(shape, dtype); };
  const Tensor x = zeros({2, 8}), weight = zeros({8, 4}), out = zeros({2, 8}), bounds = numbers({0, 2}, {2});
  causal_conv_forward(out, x, weight, {}, bounds);
  EXPECT_THROW(causal_conv_forward(out, zeros({2, 16}), weight, {}, bounds), ShapeError);
  EXPECT_THROW(causal_conv_forward(out, x, zeros({8, 9}), {}, bounds), ShapeError);
  EXPECT_THROW(causal_conv_forward(out, x, zeros({8, 4}, DType::bf16), {}, bounds), ShapeError);
  EXPECT_THROW(causal_conv_forward(out, x, weight, zeros({3}), bounds), ShapeError);
  EXPECT_THROW(causal_conv_forward(zeros({2, 9}), x, weight, {}, bounds), ShapeError);
  EXPECT_THROW(causal_conv_forward(out, x, weight, {}, numbers({0, 3}, {2})), ShapeError);
  EXPECT_THROW(causal_conv_backward(x, zeros({4, 8}), {}, out, x, weight, {}, bounds), ShapeError);
  EXPECT_THROW(causal_conv_backward(x, {}, zeros({8}), out, x, weight, {}, bounds), ShapeError);
  const Tensor states = zeros({3, 3, 8});
  causal_conv_step(out, states, x, weight, {}, one_sequence(2, 7, 2, {}));
  EXPECT_THROW(causal_conv_step(out, states, x, weight, {}, one_sequence(2, 7, 3, {})), ShapeError);
  EXPECT_THROW(causal_conv_step(out, states, x, weight, {}, one_sequence(2, 7, -1, {})), ShapeError);
  EXPECT_THROW(causal_conv_step(out, states, x, weight, {}, one_sequence(1, 7, 0, {})), ShapeError);
  EXPECT_THROW(causal_conv_step(out, zeros({3, 4, 8}), x, weight, {}, one_sequence(2, 7, 0, {})), ShapeError);
  EXPECT_THROW(causal_conv_step(out, zeros({3, 3, 8}, DType::bf16), x, weight, {}, one_sequence(2, 7, 0, {})),
               ShapeError);
  const PagedBatch without_slots(bounds, numbers({7}, {1}), numbers({0}, {1, 1}), {1, 1 << 20, {}});
  EXPECT_THROW(causal_conv_step(out, states, x, weight, {}, without_slots), ShapeError);
}

}  // namespace
}  // namespace lathe::kernels
