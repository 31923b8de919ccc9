// row_gate: against the f64 reference on every device and instruction set, and what it must refuse.
#include <gtest/gtest.h>

#include "core/error.h"
#include "tests/kernels/row_gate_cases.h"
#include "tests/support/kernel_checks.h"

namespace lathe::kernels {

LATHE_CHECK_OPERATIONS(lathe::testing::row_gate_operations());

namespace {

TEST(RowGate, RefusesWhatDoesNotFit) {
  const auto zeros = [](const Shape& shape, DType dtype = DType::f32) { return Tensor::zeros(shape, dtype); };
  const Tensor x = zeros({2, 8}), gate = zeros({2, 1}), out = zeros({2, 8});
  row_gate_forward(out, gate, x, x);
  EXPECT_THROW(row_gate_forward(out, zeros({2, 2}), x, x), ShapeError);
  EXPECT_THROW(row_gate_forward(out, zeros({2, 1}, DType::bf16), x, x), ShapeError);
  EXPECT_THROW(row_gate_forward(out, gate, x, zeros({2, 9})), ShapeError);
  EXPECT_THROW(row_gate_forward(out, gate, x, {}), ShapeError);
  EXPECT_THROW(row_gate_backward(zeros({1, 1}), x, out, gate, x), ShapeError);
  EXPECT_THROW(row_gate_backward(gate, x, zeros({3, 8}), gate, x), ShapeError);
}

}  // namespace
}  // namespace lathe::kernels
