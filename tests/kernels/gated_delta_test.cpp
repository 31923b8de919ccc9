// gated_delta: against the f64 reference on every device and instruction set, transformers' answers, steps against
// whole sequences, and what it must refuse.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/random.h"
#include "kernels/copy/copy.h"
#include "kernels/cuda/graph.h"
#include "kernels/cuda/runtime.h"
#include "tests/kernels/every_device.h"
#include "tests/kernels/gated_delta_cases.h"
#include "tests/kernels/state_steps.h"
#include "tests/support/golden.h"
#include "tests/support/kernel_checks.h"

namespace lathe::kernels {

LATHE_CHECK_OPERATIONS(lathe::testing::gated_delta_operations());

namespace {

using namespace lathe::testing::state_steps;

class GatedDeltaRule : public OnEveryDevice {
 protected:
  GatedDelta random_inputs(const GatedDeltaHeads& heads, int64_t tokens, DType dtype) {
    const Shape each{tokens, heads.value_heads};
    return {random({tokens, heads.qkv_columns()}, dtype),
            random(each, dtype),
            random(each, dtype),
            random({heads.value_heads}, DType::f32),
            random({heads.value_heads}, dtype),
            heads};
  }
  static GatedDelta rows(const GatedDelta& all, int64_t begin, int64_t end) {
    return {all.qkv.slice(0, begin, end),
            all.a.slice(0, begin, end),
            all.b.slice(0, begin, end),
            all.A_log,
            all.dt_bias,
            all.heads};
  }
  // States that nobody may read before a sequence has begun in them.
  Tensor spoiled_states(int64_t slots, const GatedDeltaHeads& heads) const {
    const Tensor states =
        Tensor::empty({slots, heads.value_heads, heads.key_dim, heads.value_dim}, DType::f32, device());
    fill(states, std::numeric_limits<double>::quiet_NaN());
    return states;
  }
  Tensor empty_out(const GatedDelta& inputs) const {
    return Tensor::empty({inputs.qkv.dim(0), inputs.heads.out_columns()}, inputs.qkv.dtype(), device());
  }
  Tensor whole(const GatedDelta& inputs) const {
    const Tensor out = empty_out(inputs);
    gated_delta_forward(out, inputs, numbers({0, static_cast<int32_t>(inputs.qkv.dim(0))}));
    return out;
  }
};

INSTANTIATE_TEST_SUITE_P(, GatedDeltaRule, every_device(), name_of_device);

// Both sides are of f32, through at most 70 tokens with sums of at most 16 terms: 2^-24 · √(70 · 16), twice, of the
// largest number.
void expect_close(const Tensor& there, const Tensor& expected, const std::string& what) {
  const Tensor found = moved(there, {});
  double largest = 0;
  for (const float value : expected.span<float>()) largest = std::max(largest, std::abs(static_cast<double>(value)));
  for (int64_t i = 0; i < expected.numel(); ++i)
    ASSERT_NEAR(found.data<float>()[i], expected.data<float>()[i], 67 * 0x1p-24 * largest) << what << ", " << i;
}

TEST_P(GatedDeltaRule, AnswersAsTransformers) {
  auto golden = lathe::testing::golden_tensors("kernels/gated_delta.safetensors");
  const std::pair<std::string, GatedDeltaHeads> cases[] = {{"one.", {1, 1, 8, 16}}, {"grouped.", {2, 4, 16, 8}}};
  for (const auto& named : cases) {
    const std::string& name = named.first;
    const GatedDeltaHeads& heads = named.second;
    const auto get = [&](const std::string& key) { return moved(golden.at(name + key), device()); };
    const GatedDelta inputs{get("qkv"), get("a"), get("b"), get("A_log"), get("dt_bias"), heads};
    const auto tokens = static_cast<int32_t>(inputs.qkv.dim(0));
    expect_close(whole(inputs), golden.at(name + "out"), name + "out");

    const Tensor states = spoiled_states(1, heads), out = empty_out(inputs);
    gated_delta_step(out, states, inputs, batch_of({{0, tokens, 0}}, device()));
    expect_close(states.slice(0, 0, 1), golden.at(name + "state"), name + "state");

    const Tensor grad_qkv = Tensor::empty(inputs.qkv.shape(), DType::f32, device());
    const Tensor grad_a = Tensor::empty(inputs.a.shape(), DType::f32, device()),
                 grad_b = Tensor::empty(inputs.b.shape(), DType::f32, device());
    const Tensor grad_A_log = Tensor::zeros({heads.value_heads}, DType::f32, device()),
                 grad_dt_bias = Tensor::zeros({heads.value_heads}, DType::f32, device());
    gated_delta_backward(grad_qkv, grad_a, grad_b, grad_A_log, grad_dt_bias, get("grad_out"), inputs,
                         numbers({0, tokens}));
    expect_close(grad_qkv, golden.at(name + "grad_qkv"), name + "grad_qkv");
    expect_close(grad_a, golden.at(name + "grad_a"), name + "grad_a");
    expect_close(grad_b, golden.at(name + "grad_b"), name + "grad_b");
    expect_close(grad_A_log, golden.at(name + "grad_A_log"), name + "grad_A_log");
    expect_close(grad_dt_bias, golden.at(name + "grad_dt_bias"), name + "grad_dt_bias");
  }
}

// A prompt and its answer in pieces, beside another sequence that is elsewhere: the bits of the whole sequence,
// whatever the states held before, and the state that one step leaves.
TEST_P(GatedDeltaRule, StepsHaveTheBitsOfWholeSequences) {
  const std::vector<std::vector<int32_t>> cuts = {{23}, {1, 1, 1, 20}, {4, 4, 5, 1, 9}, {16, 1, 1, 1, 1, 3}};
  const GatedDeltaHeads heads{2, 4, 40, 24};
  const int32_t tokens = 23;
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    const GatedDelta inputs = random_inputs(heads, tokens, dtype);
    GatedDelta other = random_inputs(heads, tokens, dtype);
    other.A_log = inputs.A_log;
    other.dt_bias = inputs.dt_bias;
    const std::vector<std::byte> expected = bytes(whole(inputs));
    const Tensor expected_of_other = whole(other);
    const Tensor after = spoiled_states(1, heads), out = empty_out(inputs);
    gated_delta_step(out, after, inputs, batch_of({{0, tokens, 0}}, device()));
    EXPECT_EQ(bytes(out), expected) << name_of(dtype);
    for (const std::vector<int32_t>& cut : cuts) {
      const Tensor states = spoiled_states(5, heads), out_of_other = empty_out(other);
      int32_t done = 0, done_of_other = 0;
      for (const int32_t count : cut) {
        const int32_t here = std::min<int32_t>(2, tokens - done_of_other);  // the other one's
        const int32_t end = done + count, end_of_other = done_of_other + here;
        GatedDelta both = inputs;
        const auto joined = [&](const Tensor& first, const Tensor& second) {
          const Tensor result = Tensor::empty({here + count, first.dim(1)}, dtype, device());
          copy(result.slice(0, 0, here), first.slice(0, done_of_other, end_of_other));
          copy(result.slice(0, here, here + count), second.slice(0, done, end));
          return result;
        };
        both.qkv = joined(other.qkv, inputs.qkv);
        both.a = joined(other.a, inputs.a);
        both.b = joined(other.b, inputs.b);
        const Tensor made = empty_out(both);
        gated_delta_step(made, states, both,
                         batch_of({{done_of_other, end_of_other, 1}, {7, 7, 2}, {done, end, 3}}, device()));
        copy(out_of_other.slice(0, done_of_other, end_of_other), made.slice(0, 0, here));
        copy(out.slice(0, done, end), made.slice(0, here, here + count));
        done = end;
        done_of_other = end_of_other;
      }
      EXPECT_EQ(bytes(out), expected) << name_of(dtype) << ", " << cut.size() << " steps";
      EXPECT_EQ(bytes(out_of_other.slice(0, 0, done_of_other)), bytes(expected_of_other.slice(0, 0, done_of_other)))
          << name_of(dtype) << ", " << cut.size() << " steps";
      EXPECT_EQ(bytes(states.slice(0, 3, 4)), bytes(after)) << name_of(dtype) << ", " << cut.size() << " steps";
    }
  }
}

// What a sequence that is gone has left in a slot is nothing to the one that begins there.
TEST_P(GatedDeltaRule, ASlotIsUsedAgain) {
  const GatedDeltaHeads heads{1, 2, 16, 8};
  const GatedDelta gone = random_inputs(heads, 5, DType::f32), inputs = random_inputs(heads, 6, DType::f32);
  const std::vector<std::byte> expected = bytes(whole(inputs));
  const Tensor states = spoiled_states(2, heads), ignored = empty_out(gone), out = empty_out(inputs);
  gated_delta_step(ignored, states, gone, batch_of({{0, 5, 1}}, device()));
  gated_delta_step(out.slice(0, 0, 2), states, rows(inputs, 0, 2), batch_of({{0, 2, 1}}, device()));
  gated_delta_step(out.slice(0, 2, 6), states, rows(inputs, 2, 6), batch_of({{2, 6, 1}}, device()));
  EXPECT_EQ(bytes(out), expected);
}

// A step of decoding that was captured once: which state is whose, and where it begins, is read where the numbers lie.
TEST_P(GatedDeltaRule, ACapturedStepIsThatOfTheNumbersThatItFinds) {
  const GatedDeltaHeads heads{1, 2, 16, 8};
  const int32_t tokens = 4;
  const GatedDelta one = random_inputs(heads, tokens, DType::f32);
  GatedDelta two = random_inputs(heads, tokens, DType::f32);
  two.A_log = one.A_log;
  two.dt_bias = one.dt_bias;
  const std::vector<std::byte> expected = bytes(whole(one)), expected_two = bytes(whole(two));

  // The first is a token ahead; before the second begins, its place has a sequence that is nobody's, in slot 1.
  const Tensor states = spoiled_states(3, heads), out_one = empty_out(one), out_two = empty_out(two);
  GatedDelta both = random_inputs(heads, 2, DType::f32);
  both.A_log = one.A_log;
  both.dt_bias = one.dt_bias;
  const Tensor out = empty_out(both), there = Tensor::empty({PagedBatch::number_count(2, 2, 2)}, DType::i32, device());
  DeviceGraph graph(device());
  for (int32_t t = 0; t <= tokens; ++t) {
    const auto put = [&](int64_t row, const GatedDelta& from, int32_t token) {
      if (token < 0 || token >= tokens) return;
      copy(both.qkv.slice(0, row, row + 1), from.qkv.slice(0, token, token + 1));
      copy(both.a.slice(0, row, row + 1), from.a.slice(0, token, token + 1));
      copy(both.b.slice(0, row, row + 1), from.b.slice(0, token, token + 1));
    };
    put(0, one, t);
    put(1, two, t - 1);
    const Piece first = t < tokens ? Piece{t, t + 1, 2} : Piece{0, 1, 1},
                second = t > 0 ? Piece{t - 1, t, 0} : Piece{0, 1, 1};
    const PagedBatch batch = batch_of({first, second}, device(), there);
    copy_bytes(device(), there.raw(), {}, batch.numbers().data(), there.nbytes());
    if (t == 0) {
      graph.run([&] { gated_delta_step(out, states, both, batch); });
    } else if (device().kind == DeviceKind::cpu) {
      gated_delta_step(out, states, both, batch);
    } else {
      graph.replay();
    }
    if (t < tokens) copy(out_one.slice(0, t, t + 1), out.slice(0, 0, 1));
    if (t > 0) copy(out_two.slice(0, t - 1, t), out.slice(0, 1, 2));
  }
  EXPECT_EQ(bytes(out_one), expected);
  EXPECT_EQ(bytes(out_two), expected_two);
}

// More than the workspace may have at a time: 1350 tokens of 16 heads take 89 MiB, three times as many are two groups.
TEST(GatedDeltaBackward, AGroupOfSequencesHasTheBitsOfEachAlone) {
  RandomStream random(3, RandomPurpose::test);
  const auto make = [&](const Shape& shape) {
    const Tensor wide = Tensor::empty(shape, DType::f32);
    for (float& value : wide.span<float>()) value = random.normal();
    return cast(wide, DType::bf16);
  };
  const GatedDeltaHeads heads{1, 16, 128, 128};
  const int32_t length = 1350, tokens = 3 * length;
  const GatedDelta inputs{
      make({tokens, heads.qkv_columns()}), make({tokens, 16}), make({tokens, 16}), make({16}), make({16}), heads};
  const Tensor grad_out = make({tokens, heads.out_columns()});
  const auto backward = [&](const std::vector<std::vector<int32_t>>& calls) {
    const Tensor grads[] = {Tensor::empty(inputs.qkv.shape(), DType::bf16), Tensor::empty({tokens, 16}, DType::bf16),
                            Tensor::empty({tokens, 16}, DType::bf16), Tensor::zeros({16}, DType::f32),
                            Tensor::zeros({16}, DType::f32)};
    for (const std::vector<int32_t>& bounds : calls) {
      const int32_t first = bounds.front(), end = bounds.back();
      const auto part = [&](const Tensor& tensor) { return tensor.slice(0, first, end); };
      std::vector<int32_t> own = bounds;
      for (int32_t& bound : own) bound -= first;
      gated_delta_backward(part(grads[0]), part(grads[1]), part(grads[2]), grads[3], grads[4], part(grad_out),
                           {part(inputs.qkv), part(inputs.a), part(inputs.b), inputs.A_log, inputs.dt_bias, heads},
                           numbers(own));
    }
    std::vector<std::byte> result;
    for (const Tensor& grad : grads) {
      const auto* const begin = static_cast<const std::byte*>(grad.raw());
      result.insert(result.end(), begin, begin + grad.nbytes());
    }
    return result;
  };
  EXPECT_TRUE(backward({{0, length, 2 * length, tokens}}) ==
              backward({{0, length}, {length, 2 * length}, {2 * length, tokens}}));
}

TEST(GatedDeltaChecks, RefusesWhatDoesNotFit) {
  const auto zeros = [](const Shape& shape, DType dtype = DType::f32) { return Tensor::zeros(shape, dtype); };
  const GatedDeltaHeads heads{1, 2, 8, 8};
  const GatedDelta good{zeros({3, 32}), zeros({3, 2}), zeros({3, 2}), zeros({2}), zeros({2}), heads};
  const Tensor out = zeros({3, 16}), bounds = numbers({0, 3});
  gated_delta_forward(out, good, bounds);
  const auto refused = [&](const auto& change) {
    GatedDelta bad = good;
    change(bad);
    EXPECT_THROW(gated_delta_forward(out, bad, bounds), ShapeError);
  };
  refused([&](GatedDelta& bad) { bad.qkv = zeros({3, 40}); });
  refused([&](GatedDelta& bad) { bad.a = zeros({2, 2}); });
  refused([&](GatedDelta& bad) { bad.b = zeros({3, 2}, DType::bf16); });
  refused([&](GatedDelta& bad) { bad.A_log = zeros({2}, DType::bf16); });
  refused([&](GatedDelta& bad) { bad.dt_bias = zeros({3}); });
  refused([&](GatedDelta& bad) { bad.heads.key_dim = 4; });
  refused([&](GatedDelta& bad) { bad.heads.value_dim = 264; });
  refused([&](GatedDelta& bad) { bad.heads.key_heads = 3; });
  refused([&](GatedDelta& bad) { bad.heads.key_heads = 0; });
  EXPECT_THROW(gated_delta_forward(zeros({3, 8}), good, bounds), ShapeError);
  EXPECT_THROW(gated_delta_forward(out, good, numbers({0, 2})), ShapeError);
  EXPECT_THROW(gated_delta_backward(good.qkv, good.a, good.b, zeros({2}, DType::bf16), {}, out, good, bounds),
               ShapeError);
  EXPECT_THROW(gated_delta_backward(good.qkv, zeros({3, 1}), good.b, {}, {}, out, good, bounds), ShapeError);

  const Tensor states = zeros({2, 2, 8, 8});
  gated_delta_step(out, states, good, batch_of({{0, 3, 1}}, {}));
  EXPECT_THROW(gated_delta_step(out, states, good, batch_of({{0, 3, 2}}, {})), ShapeError);
  EXPECT_THROW(gated_delta_step(out, states, good, batch_of({{0, 3, -1}}, {})), ShapeError);
  EXPECT_THROW(gated_delta_step(out, zeros({2, 2, 8, 16}), good, batch_of({{0, 3, 1}}, {})), ShapeError);
  EXPECT_THROW(gated_delta_step(out, zeros({2, 2, 8, 8}, DType::bf16), good, batch_of({{0, 3, 1}}, {})), ShapeError);
  const PagedBatch without_slots(bounds, numbers({3}), numbers({0}, {1, 1}), {2, page_size, {}});
  EXPECT_THROW(gated_delta_step(out, states, good, without_slots), ShapeError);
}

}  // namespace
}  // namespace lathe::kernels
