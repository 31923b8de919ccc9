// add and scale: against the f64 reference on every device, instruction set and dtype, exact where it must be.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "core/error.h"
#include "kernels/copy/copy.h"
#include "tests/kernels/add_cases.h"
#include "tests/support/kernel_checks.h"

namespace lathe::testing {
namespace {

LATHE_CHECK_OPERATIONS(add_operations());

TEST(Add, ScaleOfOneIsTheCorrectlyRoundedSum) {
  const float a_values[] = {1.0f, 0x1p24f, -0.0f, 1e30f, INFINITY, 3e38f},
              b_values[] = {0x1p-25f, 1.0f, -0.0f, -1e30f, 1.0f, 3e38f};
  const Tensor out = Tensor::empty({6}, DType::f32);
  kernels::add(out, Tensor::of<float>(a_values, {6}), Tensor::of<float>(b_values, {6}));
  for (int i = 0; i < 6; ++i) EXPECT_EQ(out.data<float>()[i], a_values[i] + b_values[i]) << i;
  EXPECT_TRUE(std::signbit(out.data<float>()[2]));
}

TEST(Add, TakesF64WhereAnyArgumentIs) {
  const double b_value[] = {0x1p-60};
  const float a_value[] = {1.0f};
  const Tensor out = Tensor::empty({1}, DType::f64);
  kernels::add(out, Tensor::of<float>(a_value, {1}), Tensor::of<double>(b_value, {1}), 0x1p10);
  EXPECT_EQ(out.data<double>()[0], 1.0 + 0x1p-50);
}

// Vectors of 16 bytes are moved only where they fit; the sum is the CPU's, bit for bit (half of b is exact, fused or
// not).
TEST(Add, OnADeviceElementsMayStartAnywhere) {
  const Tensor values = Tensor::empty({2, 101}, DType::f32);
  RandomStream random(7, RandomPurpose::test);
  for (float& x : values.span<float>()) x = random.normal();
  const Tensor there = Tensor::empty({2, 101}, DType::f32, {DeviceKind::simt});
  kernels::copy(there, values);
  const auto add_tails = [](const Tensor& pair) {
    const Tensor a = pair.select(0, 0).slice(0, 1, 101), b = pair.select(0, 1).slice(0, 1, 101);
    const Tensor out = Tensor::zeros({101}, DType::f32, pair.device());
    kernels::add(out.slice(0, 1, 101), a, b, 0.5);
    return out;
  };
  const Tensor found = Tensor::empty({101}, DType::f32);
  kernels::copy(found, add_tails(there));
  const Tensor expected = add_tails(values);
  for (int i = 0; i < 101; ++i) EXPECT_EQ(found.data<float>()[i], expected.data<float>()[i]) << i;
}

TEST(ScaleRows, HasTheBitsOfScale) {
  RandomStream random(9, RandomPurpose::test);
  const Tensor values = Tensor::empty({7, 40}, DType::f32), scales = Tensor::empty({7}, DType::f32);
  for (float& x : values.span<float>()) x = random.normal();
  for (float& x : scales.span<float>()) x = random.normal();
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16, DType::f64})
    for (const Device device : {Device{}, Device{DeviceKind::simt}}) {
      if (dtype == DType::f64 && device.kind != DeviceKind::cpu) continue;
      const Tensor a = kernels::moved(kernels::cast(values, dtype), device);
      const Tensor by_rows = Tensor::empty(a.shape(), dtype, device), in_turn = Tensor::empty(a.shape(), dtype, device);
      kernels::scale_rows(by_rows, a,
                          kernels::moved(kernels::cast(scales, dtype == DType::f64 ? dtype : DType::f32), device));
      for (int64_t t = 0; t < 7; ++t)
        kernels::scale(in_turn.select(0, t), a.select(0, t), static_cast<double>(scales.data<float>()[t]));
      EXPECT_EQ(std::memcmp(kernels::moved(by_rows, {}).raw(), kernels::moved(in_turn, {}).raw(),
                            static_cast<size_t>(a.nbytes())),
                0)
          << name_of(dtype) << " " << to_string(device);
    }
}

TEST(Add, RefusesShapesThatDoNotFitAndViewsWithHoles) {
  const Tensor out = Tensor::zeros({4, 4}, DType::f32);
  EXPECT_THROW(kernels::add(out, out, Tensor::zeros({16}, DType::f32)), ShapeError);
  EXPECT_THROW(kernels::add(out, Tensor::zeros({4, 8}, DType::f32).slice(1, 0, 4), out), ShapeError);
  EXPECT_THROW(kernels::add(out, Tensor::zeros({4, 4}, DType::i32), out), ShapeError);
  EXPECT_THROW(kernels::scale(Tensor{}, out, 1.0), ShapeError);
}

}  // namespace
}  // namespace lathe::testing
