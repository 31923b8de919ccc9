// The engine by itself, on operations that a user might write.
#include <chrono>

#include "autograd/node.h"
#include "autograd/ops/arithmetic.h"
#include "autograd/ops/view.h"
#include "autograd/recording.h"
#include "core/error.h"
#include "core/memory.h"
#include "kernels/add/add.h"
#include "tests/autograd/tensors.h"

namespace lathe::autograd::testing {
namespace {

Tensor product(const Tensor& a, const Tensor& b) {
  Tensor out = Tensor::empty(a.shape(), a.dtype());
  const auto in_a = a.span<float>(), in_b = b.span<float>();
  for (size_t i = 0; i < in_a.size(); ++i) out.span<float>()[i] = in_a[i] * in_b[i];
  return out;
}

// out = x², with a record of what the walk does to it.
struct Square final : Operation {
  std::vector<int64_t>* live_bytes = nullptr;  // of activations, at each vjp
  std::string_view name() const override { return "square"; }
  void forward(Forward& f) {
    f.save_input("x", 0);
    f.output(product(f.input(0), f.input(0)));
  }
  void vjp(Saved& saved, std::span<Tensor> grad_outputs, InputGradients& grads) override {
    if (live_bytes) {
      live_bytes->push_back(allocator_for({}).stats().live_bytes[static_cast<size_t>(MemoryTag::activations)]);
    }
    Tensor grad_x = product(saved["x"], grad_outputs[0]);
    kernels::scale(grad_x, grad_x, 2.0);
    grads.add(0, grad_x);
  }
};

Variable square(const Variable& x, std::vector<int64_t>* live_bytes = nullptr) {
  Square operation;
  operation.live_bytes = live_bytes;
  return apply(operation, {x});
}

// out = a · b, noting which gradients it was asked for.
struct Multiply final : Operation {
  std::vector<bool>* asked;
  explicit Multiply(std::vector<bool>* a) : asked(a) {}
  std::string_view name() const override { return "multiply"; }
  void forward(Forward& f) {
    f.save("a", f.input(0));
    f.save("b", f.input(1));
    f.output(product(f.input(0), f.input(1)));
  }
  void vjp(Saved& saved, std::span<Tensor> grad_outputs, InputGradients& grads) override {
    *asked = {grads.needed(0), grads.needed(1)};
    if (grads.needed(0)) grads.add(0, product(saved["b"], grad_outputs[0]));
    if (grads.needed(1)) grads.add(1, product(saved["a"], grad_outputs[0]));
  }
};

Tensor values(std::vector<float> list) {
  return Tensor::of(std::span<const float>(list), Shape{static_cast<int64_t>(list.size())});
}

std::vector<float> list_of(const Tensor& tensor) {
  const auto span = tensor.span<float>();
  return {span.begin(), span.end()};
}

std::string message_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const NumericError& error) {
    return error.what();
  }
  return "no NumericError";
}

TEST(OperationTimes, counts_what_is_applied_and_walked_while_it_lives) {
  const Variable x = Variable::leaf(values({1, 2, 3}));
  square(x);  // before: not counted
  {
    const OperationTimes times;
    const Variable out = sum(square(square(x)));
    EXPECT_THROW(OperationTimes{}, Error);
    backward(out);
    const std::vector<OperationTime> all = times.longest_first();
    ASSERT_EQ(all.size(), 2u);
    EXPECT_GE(all[0].total_seconds(), all[1].total_seconds());
    for (const OperationTime& time : all) {
      const int64_t calls = time.name == "square" ? 2 : 1;
      EXPECT_EQ(time.calls[0], calls) << time.name;
      EXPECT_EQ(time.calls[1], calls) << time.name;
      EXPECT_GT(time.seconds[0], 0) << time.name;
    }
  }
  EXPECT_EQ(operation_times, nullptr);
}

// Fills a tensor of simt forward and copies it to the host backward.
struct OnDevice final : Operation {
  std::string_view name() const override { return "on_device"; }
  void forward(Forward& f) {
    Tensor out = Tensor::empty({4}, DType::f32, Device{DeviceKind::simt});
    kernels::fill(out, 1.0);
    kernels::fill(out, 2.0);
    f.output(out);
  }
  void vjp(Saved&, std::span<Tensor> grad_outputs, InputGradients&) override { kernels::moved(grad_outputs[0], {}); }
};

TEST(OperationTimes, count_what_each_operation_queues_on_a_device_and_waits_for) {
  const Variable x = Variable::leaf(Tensor::zeros({1}, DType::f32));
  const Tensor before = Tensor::empty({4}, DType::f32, Device{DeviceKind::simt});
  kernels::fill(before, 0.0);  // not counted
  const OperationTimes times;
  backward(apply(OnDevice{}, {x}), before);
  kernels::fill(before, 0.0);
  const std::vector<DeviceWork>& work = times.device_work();
  ASSERT_EQ(work.size(), 4u);
  const auto expect = [&](size_t i, std::string_view operation, Direction direction, std::string_view name,
                          int64_t count, int64_t blocks) {
    EXPECT_EQ(work[i].operation, operation) << i;
    EXPECT_EQ(work[i].direction, direction) << i;
    EXPECT_EQ(work[i].name, name) << i;
    EXPECT_EQ(work[i].count, count) << i;
    EXPECT_EQ(work[i].blocks, blocks) << i;
  };
  expect(0, "on_device", Direction::forward, "fill", 2, 2);
  expect(1, "on_device", Direction::backward, kernels::queued_copy, 1, 0);
  expect(2, "on_device", Direction::backward, kernels::waited, 1, 0);
  expect(3, "", Direction::forward, "fill", 1, 1);
}

// An operation that applies another: its time is its own.
struct SquareTwice final : Operation {
  double* inside;  // seconds
  explicit SquareTwice(double* seconds) : inside(seconds) {}
  std::string_view name() const override { return "square_twice"; }
  void forward(Forward& f) {
    const Variable x = Variable::leaf(f.input(0));
    const OperationTimes* const outer = operation_times;
    const Variable y = square(square(x));
    *inside = outer->longest_first().front().seconds[0];
    f.output(y.value());
  }
  void vjp(Saved&, std::span<Tensor>, InputGradients&) override {}
};

TEST(OperationTimes, leave_out_of_an_operation_what_it_applies_itself) {
  const OperationTimes times;
  double inside = 0;
  const auto start = std::chrono::steady_clock::now();
  apply(SquareTwice(&inside), {Variable::leaf(Tensor::zeros({1 << 20}, DType::f32))});
  const double all = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  double seconds[2] = {};
  for (const OperationTime& time : times.longest_first()) seconds[time.name == "square"] = time.seconds[0];
  EXPECT_EQ(seconds[1], inside);
  EXPECT_GT(seconds[0], 0);
  EXPECT_LE(seconds[0] + seconds[1], all);  // counted twice, what it applies would make more
}

TEST(Tape, UserDefinedOperationHasItsGradient) {
  const Variable x = Variable::leaf(values({1, -2, 3}));
  backward(square(square(x)), values({1, 1, 2}));  // 4x³
  EXPECT_EQ(list_of(x.grad()), (std::vector<float>{4, -32, 216}));
}

TEST(Tape, GradientsAccumulateOverBackwardsUntilZeroed) {
  const Variable x = Variable::leaf(values({3}));
  for (int i = 0; i < 2; ++i) backward(square(x));
  EXPECT_EQ(list_of(x.grad()), (std::vector<float>{12}));
  const void* memory = x.grad().raw();
  x.zero_grad();
  backward(square(x));
  EXPECT_EQ(list_of(x.grad()), (std::vector<float>{6}));
  EXPECT_EQ(x.grad().raw(), memory);
}

TEST(Tape, GradientGoesIntoTheBufferGiven) {
  const Variable x = Variable::leaf(values({3})), y = Variable::leaf(values({4, 5}));
  const Tensor flat = Tensor::zeros({3}, DType::f32);
  x.set_grad(flat.slice(0, 0, 1));
  y.set_grad(flat.slice(0, 1, 3));
  backward(square(x));
  backward(square(y), values({1, 1}));
  EXPECT_EQ(list_of(flat), (std::vector<float>{6, 8, 10}));
  EXPECT_THROW(x.set_grad(values({1, 2})), ShapeError);
}

TEST(Tape, GradientOfABf16LeafIsF32) {
  const Tensor value = Tensor::empty({1}, DType::bf16);
  kernels::fill(value, 1.0);
  const Variable x = Variable::leaf(value);
  // 1 + 2⁻¹⁰ is no bf16: a gradient kept in bf16 would lose the second contribution.
  backward(x, value);
  const Tensor small = Tensor::empty({1}, DType::bf16);
  kernels::fill(small, 0x1p-10);
  backward(x, small);
  EXPECT_EQ(list_of(x.grad()), (std::vector<float>{1.0f + 0x1p-10f}));
}

TEST(Tape, ContributionsAreSummedInReverseRecordingOrder) {
  // (1e8 − 1e8) + 1 = 1, but (1 − 1e8) + 1e8 = 0 in f32: only one order gives 1.
  const Variable x = Variable::leaf(values({1}));
  const Variable shared = scale(x, 1.0);
  const Variable first = scale(shared, 1.0), second = scale(shared, -1e8), third = scale(shared, 1e8);
  backward(add(add(first, second), third));
  EXPECT_EQ(list_of(x.grad()), (std::vector<float>{1}));
}

TEST(Tape, SharedGradientMemoryIsNotWrittenThrough) {
  // add hands one gradient to both inputs; each then gets contributions of its own.
  const Variable a = Variable::leaf(values({1})), b = Variable::leaf(values({1}));
  const Variable p = scale(a, 1.0), q = scale(b, 1.0);
  const Variable both = add(p, q);
  backward(add(add(scale(p, 10.0), scale(q, 100.0)), both));
  EXPECT_EQ(list_of(a.grad()), (std::vector<float>{11}));
  EXPECT_EQ(list_of(b.grad()), (std::vector<float>{101}));
}

TEST(Tape, TheSameInputTwice) {
  std::vector<bool> asked;
  const Variable x = Variable::leaf(values({3}));
  const Variable y = scale(x, 1.0);
  backward(Variable(apply(Multiply(&asked), {y, y})));
  EXPECT_EQ(list_of(x.grad()), (std::vector<float>{6}));
}

TEST(Tape, FrozenInputsAreNotAskedFor) {
  std::vector<bool> asked;
  const Variable x = Variable::leaf(values({3}));
  backward(Variable(apply(Multiply(&asked), {Variable(values({2})), x})));
  EXPECT_EQ(asked, (std::vector<bool>{false, true}));
  EXPECT_EQ(list_of(x.grad()), (std::vector<float>{2}));
}

TEST(Tape, NothingIsRecordedWithoutALeafOrInANoGradScope) {
  EXPECT_FALSE(square(Variable(values({2}))).requires_grad());
  const Variable x = Variable::leaf(values({2}));
  {
    const NoGradScope no_grad;
    const int64_t before = allocator_for({}).stats().total_live_bytes;
    Variable y = square(x);
    const int64_t one = allocator_for({}).stats().total_live_bytes - before;
    for (int i = 0; i < 5; ++i) y = square(y);
    EXPECT_FALSE(y.requires_grad());
    EXPECT_EQ(allocator_for({}).stats().total_live_bytes - before, one);  // only the last output lives
    EXPECT_FALSE(grad_enabled());
  }
  EXPECT_TRUE(grad_enabled());
  EXPECT_TRUE(square(x).requires_grad());
  EXPECT_FALSE(square(square(x).detach()).requires_grad());
}

TEST(Tape, ABackwardFromNothingOrWithAWrongCotangentIsAnError) {
  EXPECT_NE(message_of([] { backward(Variable(values({1}))); }).find("depends on no leaf"), std::string::npos);
  const Variable x = Variable::leaf(values({1, 2}));
  EXPECT_THROW(backward(square(x)), ShapeError);
  EXPECT_THROW(backward(square(x), values({1})), ShapeError);
  EXPECT_THROW(square(x).grad(), ShapeError);
}

TEST(Tape, SavedTensorsAreFreedAsTheWalkPasses) {
  constexpr int64_t length = 4096, depth = 8, bytes = length * 4;
  const Variable x = Variable::leaf(Tensor::zeros({length}, DType::f32, {}, MemoryTag::weights));
  std::vector<int64_t> live;
  const int64_t before = allocator_for({}).stats().live_bytes[static_cast<size_t>(MemoryTag::activations)];
  Variable y = x;
  for (int i = 0; i < depth; ++i) y = square(y, &live);
  Tensor cotangent = Tensor::zeros({length}, DType::f32);
  backward(y, std::move(cotangent));
  ASSERT_EQ(live.size(), static_cast<size_t>(depth));
  // At the k-th operation from the end: y, the gradient that arrives, and the inputs of the operations still
  // to come.
  for (int64_t k = 0; k < depth; ++k) {
    EXPECT_EQ(live[static_cast<size_t>(k)] - before, (2 + (depth - 1 - k)) * bytes)
        << "operation " << k << " of the walk";
  }
}

TEST(Tape, AChangedSavedTensorIsAnErrorThatNamesOperationAndTensor) {
  const Variable x = Variable::leaf(values({1, 2}));
  const Variable y = square(x);
  x.value().span<float>()[0] = 5;
  x.value().bump_version();
  const std::string message = message_of([&] { backward(y, values({1, 1})); });
  EXPECT_NE(message.find("square"), std::string::npos) << message;
  EXPECT_NE(message.find("\"x\""), std::string::npos) << message;
}

TEST(Tape, AGraphIsWalkedOnce) {
  const Variable x = Variable::leaf(values({1}));
  const Variable shared = square(x), y = scale(shared, 2.0), z = scale(shared, 3.0);
  backward(y);
  EXPECT_NE(message_of([&] { backward(y); }).find("walked backward once"), std::string::npos);
  EXPECT_NE(message_of([&] { backward(z); }).find("walked backward once"), std::string::npos);
}

TEST(Tape, AWrongGradientShapeNamesTheOperation) {
  struct Wrong final : Operation {
    std::string_view name() const override { return "wrong"; }
    void forward(Forward& f) { f.output(f.input(0).clone()); }
    void vjp(Saved& saved, std::span<Tensor>, InputGradients& grads) override {
      if (grads.needed(0)) grads.add(0, values({1, 2, 3}));
      saved["never saved"];
    }
  };
  const Variable x = Variable::leaf(values({1}));
  try {
    backward(Variable(apply(Wrong{}, {x})));
    FAIL() << "no error";
  } catch (const ShapeError& error) {
    EXPECT_NE(std::string(error.what()).find("wrong"), std::string::npos) << error.what();
  }
}

TEST(Tape, ALongChainIsFreedWithoutRecursion) {
  Variable y = Variable::leaf(values({1}));
  for (int i = 0; i < 300000; ++i) y = view(y, {1});
  y = {};  // would need some 30 MB of stack
  SUCCEED();
}

TEST(Tape, SliceAndViewGradients) {
  const Variable x = Variable::leaf(values({1, 2, 3, 4, 5, 6}));
  const Variable grid = view(x, {2, 3});
  const Variable column = slice(grid, 1, 1, 2);
  EXPECT_EQ(column.value().raw(), static_cast<const char*>(x.value().raw()) + 4);
  backward(column, values({7, 8}).view({2, 1}));
  EXPECT_EQ(list_of(x.grad()), (std::vector<float>{0, 7, 0, 0, 8, 0}));
}

// What an operation gives again is what the operations after it had.
struct Doubling final : Operation {
  int* recomputed;
  explicit Doubling(int* count) : recomputed(count) {}
  std::string_view name() const override { return "doubling"; }
  static Tensor twice(const Tensor& x) {
    Tensor out = Tensor::empty(x.shape(), x.dtype());
    kernels::scale(out, x, 2.0);
    return out;
  }
  void forward(Forward& f) {
    f.save_input("x", 0);
    f.output(twice(f.input(0)));
  }
  void vjp(Saved&, std::span<Tensor> grad_outputs, InputGradients& grads) override {
    grads.add(0, twice(grad_outputs[0]));
  }
  bool can_recompute() const override { return true; }
  Tensor recompute(Saved& saved) override {
    ++*recomputed;
    return twice(saved["x"]);
  }
};

TEST(Tape, RecomputedOutputsAreNotKeptAndComputedOnceInTheWalk) {
  int count = 0;
  const Variable x = Variable::leaf(Tensor::zeros({1024}, DType::f32, {}, MemoryTag::weights));
  kernels::fill(x.value(), 3.0);
  const int64_t before = allocator_for({}).stats().live_bytes[static_cast<size_t>(MemoryTag::activations)];
  Variable y = Variable(apply(Doubling(&count), {Variable(apply(Doubling(&count), {x}))}));
  Variable z = add(square(y), square(y));
  y = {};
  EXPECT_EQ(allocator_for({}).stats().live_bytes[static_cast<size_t>(MemoryTag::activations)] - before,
            4096);  // z only
  Tensor ones = Tensor::empty({1024}, DType::f32);
  kernels::fill(ones, 1.0);
  backward(z, ones);  // z = 2 (4x)²
  EXPECT_EQ(count, 2);
  EXPECT_EQ(x.grad().span<float>()[1023], 192.0f);
}

}  // namespace
}  // namespace lathe::autograd::testing
