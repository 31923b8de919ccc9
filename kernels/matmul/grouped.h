// Products of few rows in groups, each by the weight that it names, on a device (cuda, simt) that alone knows which
// these are: a mixture's experts in decoding. One launch, with the bits of linear_forward of each group's rows, for
// weights of 16 bits, nf4, int8 and a GGUF file's blocks.
#pragma once

#include "core/tensor.h"
#include "kernels/gated/bodies.h"
#include "kernels/matmul/weights/weight_table.h"

namespace lathe::kernels {

// Group g < G is the rows [bounds[g], bounds[g + 1]) of out [R, N], few_rows_most at most, by weight experts[g]. One
// without rows may name any.
struct WeightGroups {
  Tensor numbers;  // i32 [G]
  Tensor bounds;   // i32 [G + 1]
};

// out [R, N] = x [R, K] · (weight of the row's group)ᵀ (+ its bias). All are of the table's dtype; beside codes x's
// rows begin at multiples of 16 bytes. Rows of out that are in no group are left as they were.
void grouped_linear(const Tensor& out, const Tensor& x, const WeightTable& weights, const WeightGroups& groups);

// out [R, F] = act(gate) · up (kernels/gated/gated.h) of the products with two tables, which go with each other, of x
// [T, K]: row r of out is of x's row rows[r], i32 [R].
void grouped_gated_linear(const Tensor& out, const Tensor& x, const Tensor& rows, const WeightTable& gate,
                          const WeightTable& up, const WeightGroups& groups, GateKind kind);

}  // namespace lathe::kernels
