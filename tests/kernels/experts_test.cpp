// A mixture's choices and rows: against the f64 reference on every device and instruction set; the residual that is
// added to a token's rows has the bits of an addition after them.
#include <gtest/gtest.h>

#include <vector>

#include "core/error.h"
#include "kernels/add/add.h"
#include "tests/kernels/every_device.h"
#include "tests/kernels/experts_cases.h"
#include "tests/kernels/ggml_blocks.h"
#include "tests/support/kernel_checks.h"

namespace lathe::kernels {

LATHE_CHECK_OPERATIONS(lathe::testing::experts_operations());

namespace {

class ExpertsOnEveryDevice : public OnEveryDevice {
 protected:
  // In descending order, each once.
  Tensor slots(int64_t tokens, int64_t per_token) const {
    std::vector<int32_t> listed;
    for (int64_t i = tokens * per_token; i-- > 0;) listed.push_back(static_cast<int32_t>(i));
    return moved(Tensor::of<int32_t>(listed, {tokens, per_token}), device());
  }

  void expect_the_bits_of_both(DType dtype, int64_t columns) {
    constexpr int64_t tokens = 5, per_token = 3;
    const Tensor rows = random({tokens * per_token, columns}, dtype),
                 weights = random({tokens, per_token}, dtype == DType::f64 ? DType::f64 : DType::f32),
                 residual = random({tokens, columns}, dtype), order = slots(tokens, per_token);
    const auto room = [&] { return Tensor::empty({tokens, columns}, dtype, device()); };
    const Tensor sum = room(), expected = room(), found = room();
    combine_experts(sum, rows, order, weights);
    add(expected, residual, sum);
    combine_experts(found, rows, order, weights, residual);
    EXPECT_EQ(bytes(found), bytes(expected)) << columns << " columns of " << name_of(dtype);
    combine_experts(residual, rows, order, weights, residual);
    EXPECT_EQ(bytes(residual), bytes(expected)) << columns << " columns of " << name_of(dtype) << ", in place";
  }
};

TEST_P(ExpertsOnEveryDevice, AddTheResidualWithTheBitsOfAddAfterThem) {
  for (const Isa isa : every_isa) {
    if (!machine_has(isa) || (device().kind != DeviceKind::cpu && isa != active_isa())) continue;
    const lathe::testing::ActiveIsa active(isa);
    for (const DType dtype : {DType::f32, DType::bf16, DType::f16})
      for (const int64_t columns : {1, 61, 264, 2048}) expect_the_bits_of_both(dtype, columns);
  }
  if (device().kind == DeviceKind::cpu) expect_the_bits_of_both(DType::f64, 61);
}

TEST_P(ExpertsOnEveryDevice, RefuseAResidualThatDoesNotFit) {
  const auto zeros = [&](const Shape& shape, DType dtype) { return moved(Tensor::zeros(shape, dtype), device()); };
  const Tensor rows = zeros({4, 8}, DType::bf16), out = zeros({2, 8}, DType::bf16), order = slots(2, 2);
  combine_experts(out, rows, order, {}, zeros({2, 8}, DType::bf16));
  EXPECT_THROW(combine_experts(out, rows, order, {}, zeros({2, 9}, DType::bf16)), ShapeError);
  EXPECT_THROW(combine_experts(out, rows, order, {}, zeros({4, 8}, DType::bf16)), ShapeError);
  EXPECT_THROW(combine_experts(out, rows, order, {}, zeros({2, 8}, DType::f32)), ShapeError);
}

INSTANTIATE_TEST_SUITE_P(, ExpertsOnEveryDevice, every_device(), name_of_device);

}  // namespace
}  // namespace lathe::kernels
