// Products of rows in groups, each by the weight that it names, on a device (cuda, simt) that alone knows which these
// are: a mixture's experts. With the bits of linear_forward of each group's rows, for weights of 16 bits, nf4, int8 and
// a GGUF file's blocks. Of groups of few rows they are one launch, which reads codes as they are. Of groups of many
// rows they are one by dense weights; codes are dequantised into workspace, a band of the weights after another, with a
// launch for that and one for the products of the band.
#pragma once

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

// The workspace of products of so many rows by weights in codes, in groups of suitable_group_rows: of `tables` (one, or
// gate and up) with `count` weights [n, k] each.
struct GroupedCodesShape {
  int64_t tables, count, n, k;
  DType dtype;  // of x
};
int64_t grouped_workspace_bytes(const GroupedCodesShape& weights, int64_t rows);

// out [R, N] = x [R, K] · (weight of the row's group)ᵀ (+ its bias). All are of the table's dtype; beside codes that
// are read as they are x's rows begin at multiples of 16 bytes. Rows of out that are in no group are left as they were.
void grouped_linear(const Tensor& out, const Tensor& x, const WeightTable& weights, const WeightGroups& groups);

// out [R, F] = act(gate) · up (kernels/gated/gated.h) of the products with two tables, which go with each other, of x
// [T, K]: row r of out is of x's row rows[r], i32 [R].
void grouped_gated_linear(const Tensor& out, const Tensor& x, const Tensor& rows, const WeightTable& gate,
                          const WeightTable& up, const WeightGroups& groups, GateKind kind);

}  // namespace lathe::kernels
