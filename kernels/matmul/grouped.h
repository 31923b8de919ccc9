// Products of rows in groups, each by the weight that it names, on a device (cuda, simt) that alone knows which these
// are: a mixture's experts. With the bits of linear_forward of each group's rows, for weights of 16 bits, nf4, int8 and
// a GGUF file's blocks. Of groups of few rows they are one launch, which reads codes as they are. Of groups of many
// rows they are one by dense weights; codes are dequantised into workspace, a band of the weights after another, with a
// launch for that and one for the products of the band. So are the gradients of the rows, with the bits of
// linear_input_gradient, whose bands are of whole weights or of some of their columns: their sums run along the rows.
#pragma once

#include <span>

#include "core/tensor.h"
#include "kernels/gated/bodies.h"
#include "kernels/matmul/bands.h"
#include "kernels/matmul/cuda/few_rows.h"
#include "kernels/matmul/weights/weight_table.h"

namespace lathe::kernels {

// Group g < G is the rows [bounds[g], bounds[g + 1]) of out [R, N], `rows` at most, by weight numbers[g]. One without
// rows may name any; of groups of many rows those past the last of `begins` are not looked at.
struct WeightGroups {
  Tensor numbers;                // i32 [G]
  Tensor bounds;                 // i32 [G + 1]
  int64_t rows = few_rows_most;  // or, of many rows, 64 and, where a block has room for such tiles, 128
  Tensor begins = {};            // of many rows: i32 [weights + 1], weight i has the groups [begins[i], begins[i + 1])
  int64_t band_bytes = most_band_bytes;  // that are dequantised at a time, or 256 rows of a weight where these are more
};

// Of how many rows groups should be where so many rows in all go to the weights of a table. Until each weight has eight
// on average (codes: 64), few: then each weight's tiles are hardly more than its bytes want, and codes are decoded no
// more often than dequantising them first would take.
int64_t suitable_group_rows(const WeightTable& weights, int64_t rows);

// The same where a gradient is recorded: many, as it needs them, also of codes that few rows could read as they are.
int64_t suitable_recorded_group_rows(const WeightTable& weights, int64_t rows);

// The workspace of products in groups of many rows by weights in codes, or of their gradients, whichever is more: of
// `tables` (one, or gate and up) with `count` weights [n, k] each.
struct GroupedCodesShape {
  int64_t tables, count, n, k;
  DType dtype;  // of x
};
int64_t grouped_workspace_bytes(const GroupedCodesShape& weights);

// out [R, N] = x [R, K] · (weight of the row's group)ᵀ (+ its bias). All are of the table's dtype; beside codes that
// are read as they are x's rows begin at multiples of 16 bytes. Rows of out that are in no group are left as they were.
void grouped_linear(const Tensor& out, const Tensor& x, const WeightTable& weights, const WeightGroups& groups);

// What both products were by themselves, for a gradient: of out's shape and strides, or undefined.
struct GatedProducts {
  Tensor gate, up;
};
// out [R, F] = act(gate) · up (kernels/gated/gated.h) of the products with two tables, which go with each other, of x
// [T, K]: row r of out is of x's row rows[r], i32 [R]. The products are kept of groups of many rows alone.
void grouped_gated_linear(const Tensor& out, const Tensor& x, const Tensor& rows, const WeightTable& gate,
                          const WeightTable& up, const WeightGroups& groups, GateKind kind,
                          const GatedProducts& kept = {});

// grad_x [R, K] = grad_out [R, N] · weight of the row's group, in groups of many rows; or the sum of two terms, whose
// tables go with each other: as linear_input_gradient of the first and then, with accumulate, of the second has it.
struct GroupedGradientTerm {
  Tensor grad_out;
  const WeightTable* weights;
};
void grouped_input_gradient(const Tensor& grad_x, std::span<const GroupedGradientTerm> terms,
                            const WeightGroups& groups);

}  // namespace lathe::kernels
