// mamba2: against the f64 reference on every device and instruction set, transformers' answers, steps against
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
#include "tests/kernels/mamba2_cases.h"
#include "tests/kernels/state_steps.h"
#include "tests/support/golden.h"
#include "tests/support/kernel_checks.h"

namespace lathe::kernels {

LATHE_CHECK_OPERATIONS(lathe::testing::mamba2_operations());

namespace {

using namespace lathe::testing::state_steps;

class Mamba2Mixer : public OnEveryDevice {
 protected:
  Mamba2 random_inputs(const Mamba2Heads& heads, int64_t tokens, DType dtype) {
    return {random({tokens, heads.xbc_columns()}, dtype),
            random({tokens, heads.heads}, dtype),
            random({heads.heads}, DType::f32),
            random({heads.heads}, dtype),
            random({heads.heads}, dtype),
            heads};
  }
  static Mamba2 rows(const Mamba2& all, int64_t begin, int64_t end) {
    Mamba2 result = all;
    result.xbc = all.xbc.slice(0, begin, end);
    result.dt = all.dt.slice(0, begin, end);
    return result;
  }
  // Other tokens of the same weights.
  Mamba2 random_rows(const Mamba2& like, int64_t tokens) {
    Mamba2 result = like;
    result.xbc = random({tokens, like.heads.xbc_columns()}, like.xbc.dtype());
    result.dt = random({tokens, like.heads.heads}, like.xbc.dtype());
    return result;
  }
  // States that nobody may read before a sequence has begun in them.
  Tensor spoiled_states(int64_t slots, const Mamba2Heads& heads) const {
    const Tensor states = Tensor::empty({slots, heads.heads, heads.state_size, heads.head_dim}, DType::f32, device());
    fill(states, std::numeric_limits<double>::quiet_NaN());
    return states;
  }
  Tensor empty_out(const Mamba2& inputs) const {
    return Tensor::empty({inputs.xbc.dim(0), inputs.heads.out_columns()}, inputs.xbc.dtype(), device());
  }
  Tensor whole(const Mamba2& inputs) const {
    const Tensor out = empty_out(inputs);
    mamba2_forward(out, inputs, numbers({0, static_cast<int32_t>(inputs.xbc.dim(0))}));
    return out;
  }
};

INSTANTIATE_TEST_SUITE_P(, Mamba2Mixer, every_device(), name_of_device);

// Both sides are of f32, through at most 70 tokens with sums of at most 16 terms: 2^-24 · √(70 · 16), twice, of the
// largest number.
void expect_close(const Tensor& there, const Tensor& expected, const std::string& what) {
  const Tensor found = moved(there, {});
  double largest = 0;
  for (const float value : expected.span<float>()) largest = std::max(largest, std::abs(static_cast<double>(value)));
  for (int64_t i = 0; i < expected.numel(); ++i)
    ASSERT_NEAR(found.data<float>()[i], expected.data<float>()[i], 67 * 0x1p-24 * largest) << what << ", " << i;
}

TEST_P(Mamba2Mixer, AnswersAsTransformers) {
  auto golden = lathe::testing::golden_tensors("kernels/mamba2.safetensors");
  struct Golden {
    std::string name;
    Mamba2Heads heads;
    float dt_min, dt_max;
  };
  for (const Golden& golden_case : {Golden{"one.", {1, 1, 16, 8}, 0.0f, std::numeric_limits<float>::infinity()},
                                    Golden{"grouped.", {4, 2, 8, 16}, 0.25f, 1.5f}}) {
    const std::string& name = golden_case.name;
    const Mamba2Heads& heads = golden_case.heads;
    const auto get = [&](const std::string& key) { return moved(golden.at(name + key), device()); };
    const Mamba2 inputs{get("xbc"),     get("dt"), get("A_log"),       get("D"),
                        get("dt_bias"), heads,     golden_case.dt_min, golden_case.dt_max};
    const auto tokens = static_cast<int32_t>(inputs.xbc.dim(0));
    expect_close(whole(inputs), golden.at(name + "out"), name + "out");

    const Tensor states = spoiled_states(1, heads), out = empty_out(inputs);
    mamba2_step(out, states, inputs, batch_of({{0, tokens, 0}}, device()));
    expect_close(states.slice(0, 0, 1), golden.at(name + "state"), name + "state");

    const Tensor grad_xbc = Tensor::empty(inputs.xbc.shape(), DType::f32, device()),
                 grad_dt = Tensor::empty(inputs.dt.shape(), DType::f32, device());
    std::vector<Tensor> of_weights;
    for (int i = 0; i < 3; ++i) of_weights.push_back(Tensor::zeros({heads.heads}, DType::f32, device()));
    mamba2_backward(grad_xbc, grad_dt, of_weights[0], of_weights[1], of_weights[2], get("grad_out"), inputs,
                    numbers({0, tokens}));
    expect_close(grad_xbc, golden.at(name + "grad_xbc"), name + "grad_xbc");
    expect_close(grad_dt, golden.at(name + "grad_dt"), name + "grad_dt");
    expect_close(of_weights[0], golden.at(name + "grad_A_log"), name + "grad_A_log");
    expect_close(of_weights[1], golden.at(name + "grad_D"), name + "grad_D");
    expect_close(of_weights[2], golden.at(name + "grad_dt_bias"), name + "grad_dt_bias");
  }
}

// A prompt and its answer in pieces, beside another sequence that is elsewhere: the bits of the whole sequence,
// whatever the states held before, and the state that one step leaves.
TEST_P(Mamba2Mixer, StepsHaveTheBitsOfWholeSequences) {
  const std::vector<std::vector<int32_t>> cuts = {{23}, {1, 1, 1, 20}, {4, 4, 5, 1, 9}, {16, 1, 1, 1, 1, 3}};
  const Mamba2Heads heads{4, 2, 40, 24};
  const int32_t tokens = 23;
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    const Mamba2 inputs = random_inputs(heads, tokens, dtype);
    const Mamba2 other = random_rows(inputs, tokens);
    const std::vector<std::byte> expected = bytes(whole(inputs));
    const Tensor expected_of_other = whole(other);
    const Tensor after = spoiled_states(1, heads), out = empty_out(inputs);
    mamba2_step(out, after, inputs, batch_of({{0, tokens, 0}}, device()));
    EXPECT_EQ(bytes(out), expected) << name_of(dtype);
    for (const std::vector<int32_t>& cut : cuts) {
      const Tensor states = spoiled_states(5, heads), out_of_other = empty_out(other);
      int32_t done = 0, done_of_other = 0;
      for (const int32_t count : cut) {
        const int32_t here = std::min<int32_t>(2, tokens - done_of_other);  // the other one's
        const int32_t end = done + count, end_of_other = done_of_other + here;
        Mamba2 both = inputs;
        const auto joined = [&](const Tensor& first, const Tensor& second) {
          const Tensor result = Tensor::empty({here + count, first.dim(1)}, dtype, device());
          copy(result.slice(0, 0, here), first.slice(0, done_of_other, end_of_other));
          copy(result.slice(0, here, here + count), second.slice(0, done, end));
          return result;
        };
        both.xbc = joined(other.xbc, inputs.xbc);
        both.dt = joined(other.dt, inputs.dt);
        const Tensor made = empty_out(both);
        mamba2_step(made, states, both,
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
TEST_P(Mamba2Mixer, ASlotIsUsedAgain) {
  const Mamba2Heads heads{2, 1, 8, 16};
  const Mamba2 gone = random_inputs(heads, 5, DType::f32), inputs = random_rows(gone, 6);
  const std::vector<std::byte> expected = bytes(whole(inputs));
  const Tensor states = spoiled_states(2, heads), ignored = empty_out(gone), out = empty_out(inputs);
  mamba2_step(ignored, states, gone, batch_of({{0, 5, 1}}, device()));
  mamba2_step(out.slice(0, 0, 2), states, rows(inputs, 0, 2), batch_of({{0, 2, 1}}, device()));
  mamba2_step(out.slice(0, 2, 6), states, rows(inputs, 2, 6), batch_of({{2, 6, 1}}, device()));
  EXPECT_EQ(bytes(out), expected);
}

// A step of decoding that was captured once: which state is whose, and where it begins, is read where the numbers lie.
TEST_P(Mamba2Mixer, ACapturedStepIsThatOfTheNumbersThatItFinds) {
  const Mamba2Heads heads{2, 1, 8, 16};
  const int32_t tokens = 4;
  const Mamba2 one = random_inputs(heads, tokens, DType::f32);
  const Mamba2 two = random_rows(one, tokens);
  const std::vector<std::byte> expected = bytes(whole(one)), expected_two = bytes(whole(two));

  // The first is a token ahead; before the second begins, its place has a sequence that is nobody's, in slot 1.
  const Tensor states = spoiled_states(3, heads), out_one = empty_out(one), out_two = empty_out(two);
  const Mamba2 both = random_rows(one, 2);
  const Tensor out = empty_out(both), there = Tensor::empty({PagedBatch::number_count(2, 2, 2)}, DType::i32, device());
  DeviceGraph graph(device());
  for (int32_t t = 0; t <= tokens; ++t) {
    const auto put = [&](int64_t row, const Mamba2& from, int32_t token) {
      if (token < 0 || token >= tokens) return;
      copy(both.xbc.slice(0, row, row + 1), from.xbc.slice(0, token, token + 1));
      copy(both.dt.slice(0, row, row + 1), from.dt.slice(0, token, token + 1));
    };
    put(0, one, t);
    put(1, two, t - 1);
    const Piece first = t < tokens ? Piece{t, t + 1, 2} : Piece{0, 1, 1},
                second = t > 0 ? Piece{t - 1, t, 0} : Piece{0, 1, 1};
    const PagedBatch batch = batch_of({first, second}, device(), there);
    copy_bytes(device(), there.raw(), {}, batch.numbers().data(), there.nbytes());
    if (t == 0) {
      graph.run([&] { mamba2_step(out, states, both, batch); });
    } else if (device().kind == DeviceKind::cpu) {
      mamba2_step(out, states, both, batch);
    } else {
      graph.replay();
    }
    if (t < tokens) copy(out_one.slice(0, t, t + 1), out.slice(0, 0, 1));
    if (t > 0) copy(out_two.slice(0, t - 1, t), out.slice(0, 1, 2));
  }
  EXPECT_EQ(bytes(out_one), expected);
  EXPECT_EQ(bytes(out_two), expected_two);
}

// More than the workspace may have at a time: 1350 tokens of 32 heads take 50 MiB, six times as many are two groups.
TEST(Mamba2Backward, AGroupOfSequencesHasTheBitsOfEachAlone) {
  RandomStream random(3, RandomPurpose::test);
  const auto make = [&](const Shape& shape) {
    const Tensor wide = Tensor::empty(shape, DType::f32);
    for (float& value : wide.span<float>()) value = random.normal();
    return cast(wide, DType::bf16);
  };
  const Mamba2Heads heads{32, 1, 64, 128};
  const int32_t length = 1350, count = 6, tokens = count * length;
  const Mamba2 inputs{
      make({tokens, heads.xbc_columns()}), make({tokens, 32}), make({32}), make({32}), make({32}), heads};
  const Tensor grad_out = make({tokens, heads.out_columns()});
  const auto backward = [&](const std::vector<std::vector<int32_t>>& calls) {
    const Tensor grads[] = {Tensor::empty(inputs.xbc.shape(), DType::bf16), Tensor::empty({tokens, 32}, DType::bf16),
                            Tensor::zeros({32}, DType::f32), Tensor::zeros({32}, DType::f32),
                            Tensor::zeros({32}, DType::f32)};
    for (const std::vector<int32_t>& bounds : calls) {
      const int32_t first = bounds.front(), end = bounds.back();
      const auto part = [&](const Tensor& tensor) { return tensor.slice(0, first, end); };
      std::vector<int32_t> own = bounds;
      for (int32_t& bound : own) bound -= first;
      Mamba2 of_part = inputs;
      of_part.xbc = part(inputs.xbc);
      of_part.dt = part(inputs.dt);
      mamba2_backward(part(grads[0]), part(grads[1]), grads[2], grads[3], grads[4], part(grad_out), of_part,
                      numbers(own));
    }
    std::vector<std::byte> result;
    for (const Tensor& grad : grads) {
      const auto* const begin = static_cast<const std::byte*>(grad.raw());
      result.insert(result.end(), begin, begin + grad.nbytes());
    }
    return result;
  };
  std::vector<int32_t> together;
  std::vector<std::vector<int32_t>> alone;
  for (int32_t s = 0; s <= count; ++s) together.push_back(s * length);
  for (int32_t s = 0; s < count; ++s) alone.push_back({s * length, (s + 1) * length});
  EXPECT_GT(count * mamba2_workspace_bytes(heads, length), 256 << 20);
  EXPECT_LT(mamba2_workspace_bytes(heads, length), 128 << 20);
  EXPECT_TRUE(backward({together}) == backward(alone));
}

TEST(Mamba2Checks, RefusesWhatDoesNotFit) {
  const auto zeros = [](const Shape& shape, DType dtype = DType::f32) { return Tensor::zeros(shape, dtype); };
  const Mamba2Heads heads{2, 1, 8, 16};
  const Mamba2 good{zeros({3, 48}), zeros({3, 2}), zeros({2}), zeros({2}), zeros({2}), heads};
  const Tensor out = zeros({3, 16}), bounds = numbers({0, 3});
  mamba2_forward(out, good, bounds);
  const auto refused = [&](const auto& change) {
    Mamba2 bad = good;
    change(bad);
    EXPECT_THROW(mamba2_forward(out, bad, bounds), ShapeError);
  };
  refused([&](Mamba2& bad) { bad.xbc = zeros({3, 40}); });
  refused([&](Mamba2& bad) { bad.dt = zeros({2, 2}); });
  refused([&](Mamba2& bad) { bad.dt = zeros({3, 2}, DType::bf16); });
  refused([&](Mamba2& bad) { bad.A_log = zeros({2}, DType::bf16); });
  refused([&](Mamba2& bad) { bad.D = zeros({1}); });
  refused([&](Mamba2& bad) { bad.dt_bias = zeros({3}); });
  refused([&](Mamba2& bad) { bad.heads.head_dim = 4; });
  refused([&](Mamba2& bad) { bad.heads.state_size = 264; });
  refused([&](Mamba2& bad) { bad.heads.groups = 3; });
  refused([&](Mamba2& bad) { bad.heads.groups = 0; });
  refused([&](Mamba2& bad) { bad.dt_min = 2.0f, bad.dt_max = 1.0f; });
  refused([&](Mamba2& bad) { bad.dt_min = -1.0f; });
  EXPECT_THROW(mamba2_forward(zeros({3, 8}), good, bounds), ShapeError);
  EXPECT_THROW(mamba2_forward(out, good, numbers({0, 2})), ShapeError);
  EXPECT_THROW(mamba2_backward(good.xbc, good.dt, zeros({2}, DType::bf16), {}, {}, out, good, bounds), ShapeError);
  EXPECT_THROW(mamba2_backward(good.xbc, zeros({3, 1}), {}, {}, {}, out, good, bounds), ShapeError);
  EXPECT_THROW(mamba2_backward(good.xbc, good.dt, {}, {}, zeros({3}), out, good, bounds), ShapeError);

  const Tensor states = zeros({2, 2, 16, 8});
  mamba2_step(out, states, good, batch_of({{0, 3, 1}}, {}));
  EXPECT_THROW(mamba2_step(out, states, good, batch_of({{0, 3, 2}}, {})), ShapeError);
  EXPECT_THROW(mamba2_step(out, states, good, batch_of({{0, 3, -1}}, {})), ShapeError);
  EXPECT_THROW(mamba2_step(out, zeros({2, 2, 8, 16}), good, batch_of({{0, 3, 1}}, {})), ShapeError);
  EXPECT_THROW(mamba2_step(out, zeros({2, 2, 16, 8}, DType::bf16), good, batch_of({{0, 3, 1}}, {})), ShapeError);
  const PagedBatch without_slots(bounds, numbers({3}), numbers({0}, {1, 1}), {2, page_size, {}});
  EXPECT_THROW(mamba2_step(out, states, good, without_slots), ShapeError);
}

}  // namespace
}  // namespace lathe::kernels
