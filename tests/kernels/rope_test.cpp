#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <string>
#include <vector>

#include "core/error.h"
#include "kernels/copy/copy.h"
#include "tests/kernels/rope_cases.h"
#include "tests/support/golden.h"
#include "tests/support/kernel_checks.h"

namespace lathe::kernels {

LATHE_CHECK_OPERATIONS(lathe::testing::rope_operations());

namespace {

Tensor positions(std::array<int32_t, 2> values) { return Tensor::of<int32_t>(values, {2}); }

TEST(Rope, RejectsWhatDoesNotFit) {
  const Tensor x = Tensor::zeros({2, 3, 8}, DType::f32), table = Tensor::zeros({4, 4}, DType::f32);
  const auto run = [&](const Tensor& out, const Tensor& in, const Tensor& where, const Tensor& cosine) {
    rope(out, in, where, cosine, table, RopeDirection::forward);
  };
  EXPECT_NO_THROW(run(x, x, positions({0, 3}), table));
  EXPECT_THROW(run(x, x, positions({0, 4}), table), ShapeError);
  EXPECT_THROW(run(x, x, positions({-1, 0}), table), ShapeError);
  EXPECT_THROW(run(x, x, Tensor::zeros({3}, DType::i32), table), ShapeError);
  EXPECT_THROW(run(x, x, positions({0, 0}), Tensor::zeros({4, 8}, DType::f32)), ShapeError);
  EXPECT_THROW(run(x, x, positions({0, 0}), Tensor::zeros({4, 4}, DType::bf16)), ShapeError);
  EXPECT_THROW(run(Tensor::zeros({2, 3, 8}, DType::bf16), x, positions({0, 0}), table), ShapeError);
  const Tensor odd = Tensor::zeros({2, 3, 7}, DType::f32);
  EXPECT_THROW(run(odd, odd, positions({0, 0}), table), ShapeError);
}

TEST(Rope, APositionOutsideTheTableGivesNaNOnADevice) {
  const Device simt{DeviceKind::simt};
  const auto there = [&](const Tensor& tensor) {
    const Tensor result = Tensor::empty(tensor.shape(), tensor.dtype(), simt);
    copy(result, tensor);
    return result;
  };
  const Tensor x = there(Tensor::zeros({2, 1, 8}, DType::f32)), table = there(Tensor::zeros({4, 4}, DType::f32));
  for (const int32_t bad : {4, -1, 1 << 30}) {
    rope(x, x, there(positions({3, bad})), table, table, RopeDirection::forward);
    const Tensor found = Tensor::empty({2, 1, 8}, DType::f32);
    copy(found, x);
    for (int i = 0; i < 16; ++i) EXPECT_EQ(std::isnan(found.data<float>()[i]), i >= 8) << bad << " " << i;
  }
  EXPECT_THROW(rope(x, x, positions({0, 4}), table, table, RopeDirection::forward), ShapeError);
}

TEST(Rope, BackwardUndoesForward) {
  RandomStream random(1, RandomPurpose::test);
  const Tensor x = Tensor::empty({2, 3, 64}, DType::f64), table = Tensor::empty({9, 32}, DType::f64),
               sines = Tensor::empty({9, 32}, DType::f64), y = Tensor::empty({2, 3, 64}, DType::f64);
  for (double& value : x.span<double>()) value = random.normal();
  for (size_t i = 0; i < table.span<double>().size(); ++i) {
    table.span<double>()[i] = std::cos(0.1 * static_cast<double>(i));
    sines.span<double>()[i] = std::sin(0.1 * static_cast<double>(i));
  }
  rope(y, x, positions({8, 2}), table, sines, RopeDirection::forward);
  rope(y, y, positions({8, 2}), table, sines, RopeDirection::backward);
  // A rotation and its inverse: two products and a sum each way, of numbers below 8.
  for (size_t i = 0; i < x.span<double>().size(); ++i) EXPECT_NEAR(x.span<double>()[i], y.span<double>()[i], 1e-14);
}

TEST(RopeGolden, EqualsFloat64PyTorch) {
  auto golden = lathe::testing::golden_tensors("kernels/rope.safetensors");
  const auto positions = golden["positions"].span<int64_t>();
  std::vector<int32_t> rows(positions.size());
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<int32_t>(i);
  const int64_t tokens = static_cast<int64_t>(rows.size());
  const Tensor row = Tensor::of<int32_t>(rows, {tokens});
  for (const std::string name : {"default", "llama3", "linear"}) {
    const Tensor frequency = golden[name + ".inv_freq"];
    // One row of the table for each position that occurs.
    const Tensor cosines = Tensor::empty({tokens, frequency.dim(0)}, DType::f64);
    const Tensor sines = Tensor::empty(cosines.shape(), DType::f64);
    for (int64_t i = 0; i < cosines.numel(); ++i) {
      const double angle =
          static_cast<double>(positions[i / frequency.dim(0)]) * frequency.data<double>()[i % frequency.dim(0)];
      cosines.data<double>()[i] = std::cos(angle);
      sines.data<double>()[i] = std::sin(angle);
    }
    const auto expect_rotated = [&](const char* from, const char* to, RopeDirection direction) {
      const Tensor out = Tensor::empty(golden[name + ".x"].shape(), DType::f64);
      rope(out, golden[name + from], row, cosines, sines, direction);
      // Two products and a sum of numbers below 8, and angles that both sides round once.
      for (int64_t i = 0; i < out.numel(); ++i)
        ASSERT_NEAR(out.data<double>()[i], golden[name + to].data<double>()[i], 1e-14) << name << to << " at " << i;
    };
    expect_rotated(".x", ".y", RopeDirection::forward);
    expect_rotated(".dy", ".dx", RopeDirection::backward);
  }
}

}  // namespace
}  // namespace lathe::kernels
