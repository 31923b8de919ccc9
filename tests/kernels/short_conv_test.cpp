// short_conv: against the f64 reference on every device and instruction set, a step over pages against whole
// sequences, and what it must refuse.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "core/error.h"
#include "core/random.h"
#include "kernels/copy/copy.h"
#include "kernels/cuda/runtime.h"
#include "tests/kernels/every_device.h"
#include "tests/kernels/short_conv_cases.h"
#include "tests/support/kernel_checks.h"

namespace lathe::kernels {

LATHE_CHECK_OPERATIONS(lathe::testing::short_conv_operations());

namespace {

constexpr int64_t hidden = 40, page_size = 4, page_count = 16;

using ShortConv = OnEveryDevice;

INSTANTIATE_TEST_SUITE_P(, ShortConv, every_device(), name_of_device);

Tensor numbers(const std::vector<int32_t>& values, const Shape& shape) { return Tensor::of<int32_t>(values, shape); }

// In chunks that begin in the middle of pages and at their ends, as a prompt and its answer come: the bits of the whole
// sequence, whatever the pages held before.
TEST_P(ShortConv, StepsOverPagesHaveTheBitsOfWholeSequences) {
  const std::vector<std::vector<int32_t>> cuts = {{23}, {1, 1, 1, 20}, {4, 4, 5, 1, 9}, {10, 1, 1, 1, 1, 9}};
  const int32_t tokens = 23;
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    for (const int64_t taps : {int64_t{1}, int64_t{3}, int64_t{7}}) {
      const Tensor bcx = random({tokens, 3 * hidden}, dtype), weight = random({hidden, taps}, dtype),
                   bias = random({hidden}, dtype);
      const Tensor expected = Tensor::empty({tokens, hidden}, dtype, device());
      short_conv_forward(expected, bcx, weight, bias, numbers({0, tokens}, {2}));
      for (const std::vector<int32_t>& cut : cuts) {
        const Tensor pages = random({page_count, page_size, hidden}, dtype),
                     out = Tensor::empty({tokens, hidden}, dtype, device());
        int32_t done = 0;
        for (const int32_t count : cut) {
          const PagedBatch batch(numbers({0, count}, {2}), numbers({done + count}, {1}),
                                 numbers({3, 15, 1, 0, 9, 8}, {1, 6}), {page_count, page_size, device()});
          short_conv_paged(out.slice(0, done, done + count), pages, bcx.slice(0, done, done + count), weight, bias,
                           batch);
          done += count;
        }
        EXPECT_EQ(bytes(out), bytes(expected)) << name_of(dtype) << ", " << taps << " taps, " << cut.size() << " steps";
      }
    }
  }
}

// A token that was proposed and refused: the next step writes over its p.
TEST_P(ShortConv, ATokenThatIsTakenBackLeavesNothing) {
  const Tensor bcx = random({6, 3 * hidden}, DType::f32), weight = random({hidden, 3}, DType::f32),
               refused = random({3, 3 * hidden}, DType::f32);
  const Tensor expected = Tensor::empty({6, hidden}, DType::f32, device()),
               out = Tensor::empty({6, hidden}, DType::f32, device()),
               ignored = Tensor::empty({3, hidden}, DType::f32, device());
  short_conv_forward(expected, bcx, weight, {}, numbers({0, 6}, {2}));
  const Tensor pages = random({page_count, page_size, hidden}, DType::f32);
  const auto step = [&](const Tensor& to, const Tensor& from, int32_t context) {
    const auto count = static_cast<int32_t>(from.dim(0));
    const PagedBatch batch(numbers({0, count}, {2}), numbers({context}, {1}), numbers({2, 5}, {1, 2}),
                           {page_count, page_size, device()});
    short_conv_paged(to, pages, from, weight, {}, batch);
  };
  step(out.slice(0, 0, 3), bcx.slice(0, 0, 3), 3);
  step(ignored, refused, 6);
  step(out.slice(0, 3, 6), bcx.slice(0, 3, 6), 6);
  EXPECT_EQ(bytes(out), bytes(expected));
}

TEST(ShortConvChecks, RefusesWhatDoesNotFit) {
  const auto zeros = [](const Shape& shape, DType dtype = DType::f32) { return Tensor::zeros(shape, dtype); };
  const Tensor bcx = zeros({2, 24}), weight = zeros({8, 3}), out = zeros({2, 8}), bounds = numbers({0, 2}, {2});
  short_conv_forward(out, bcx, weight, {}, bounds);
  EXPECT_THROW(short_conv_forward(out, zeros({2, 16}), weight, {}, bounds), ShapeError);
  EXPECT_THROW(short_conv_forward(out, bcx, zeros({8, 9}), {}, bounds), ShapeError);
  EXPECT_THROW(short_conv_forward(out, bcx, zeros({8, 3}, DType::bf16), {}, bounds), ShapeError);
  EXPECT_THROW(short_conv_forward(out, bcx, weight, zeros({3}), bounds), ShapeError);
  EXPECT_THROW(short_conv_forward(zeros({2, 9}), bcx, weight, {}, bounds), ShapeError);
  EXPECT_THROW(short_conv_forward(out, bcx, weight, {}, numbers({0, 3}, {2})), ShapeError);
  EXPECT_THROW(short_conv_backward(bcx, zeros({3, 8}), {}, out, bcx, weight, {}, bounds), ShapeError);
  EXPECT_THROW(short_conv_backward(bcx, {}, zeros({8}), out, bcx, weight, {}, bounds), ShapeError);
  const PagedBatch batch(bounds, numbers({2}, {1}), numbers({0}, {1, 1}), {2, 4, {}});
  EXPECT_THROW(short_conv_paged(out, zeros({1, 4, 8}), bcx, weight, {}, batch), ShapeError);
  EXPECT_THROW(short_conv_paged(out, zeros({2, 8, 8}), bcx, weight, {}, batch), ShapeError);
  EXPECT_THROW(short_conv_paged(out, zeros({2, 4, 8}, DType::bf16), bcx, weight, {}, batch), ShapeError);
}

}  // namespace
}  // namespace lathe::kernels
