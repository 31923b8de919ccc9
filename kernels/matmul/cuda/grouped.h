// The CUDA bodies of products of rows in groups, each by a weight of its own (kernels/matmul/grouped.h). Which weights,
// and how many rows, stands in device memory. Of groups of few rows a launch is for as many as there may be, and the
// blocks of those without rows end at once; of groups of many rows blocks stay, and take tile after tile of those that
// there are. Pointers are device memory.
//
// A block of few rows cannot ask for its weight before the kernel before it has ended, as those of few_rows.cu do: it
// does not know which one. By bulk copies and wgmma (few_rows_sm_90a.cu), with a tensor map of each expert in device
// memory, a block would have 96 KB under way where these have 42 to 48 in each of three: for a token of Qwen3-30B-A3B,
// whose launches are 384 and 512 blocks of 128 and 48 KB, next to nothing; what it would save is instructions, at nine
// rows and more.
#pragma once

#include "core/device.h"
#include "kernels/gated/bodies.h"
#include "kernels/matmul/arguments.h"
#include "kernels/matmul/cuda/few_rows.h"
#include "kernels/matmul/cuda/quantized.h"

namespace lathe::kernels {

// What differs from weight to weight of dense ones; codes have a Place of their format.
struct DensePlace {
  const void* words;
};

struct GroupedWeights {
  const void* places;         // of the format's Place, by the weight's number
  const void* const* biases;  // [n] each, of the product's dtype; null: none has one
  const void* maps;           // of dense weights, weight_map_bytes for each; null: none has one
};
// Of a tensor map and what lies between it and the next.
inline constexpr int64_t weight_map_bytes = 128;

struct GroupedArgs {
  DType dtype;  // bf16 | f16, of all matrices
  int64_t n, k;
  ProductMatrix left, out;
  const int32_t *numbers,
      *bounds;         // of each group: its weight's number; its rows of out are [bounds[g], bounds[g + 1])
  int64_t groups;      // places for them
  int64_t group_rows;  // of each at most: few_rows_most, or one of those below
  // Where the rows of left lie in the order of out's; null: they are those of out. Only where there is a gate.
  const int32_t* rows;
  GroupedWeights weights;  // gate's, where up has weights, too: out is act(gate) · up then
  GroupedWeights up = {};
  GateKind gate = GateKind::silu;
  bool is_gated() const { return up.places != nullptr; }
};

// Groups of many rows have so many at most: a tile of the product has a group's.
inline constexpr int64_t medium_group_rows = 64, large_group_rows = 128;

// Products of groups of many rows by some of the weights, or the gradients of their inputs. Of a gradient `product`
// says n = the columns of the weights and k = their rows, left is that of gate's product, or of the only one, and out
// the input's, the sum of both terms.
struct GroupTilesArgs {
  GroupedArgs product;
  int64_t rows;           // of out and, unless product.rows lists them, of left
  const int32_t* begins;  // weight i has the groups [begins[i], begins[i + 1])
  int64_t first, end;     // the weights of which groups are multiplied
  int64_t stride;         // elements from row to row of a weight; rows begin at multiples of 16 bytes
  // Where these lie one after another, n rows (of a gradient k) each, gate's, or the only ones, and up's; null: where
  // their places say.
  const void *room = nullptr, *up_room = nullptr;
  int64_t first_bias = 0;  // of out's first column
  // Where gate and up go by themselves, rows as far apart as out's; null: not wanted.
  void *kept_gate = nullptr, *kept_up = nullptr;
  ProductMatrix up_left = {};  // of a gradient with two terms
};

// A part of each of `count` weights, one after another, as numbers: its rows [first_row, first_row + rows), and of
// these the columns [first_column, first_column + columns).
struct TableRowsArgs {
  DType dtype;         // of out: bf16 | f16
  void* out;           // [count, rows, columns]
  const void* places;  // of their format's Place
  int64_t count, first_row, rows;
  int64_t first_column, columns;  // multiples of eight
  int64_t weight_columns;
};

// grouped_dense.cu; the rows of all weights are `stride` elements apart and begin at multiples of 16 bytes.
template <DeviceKind>
void grouped_dense(const GroupedArgs& args, int64_t stride);
// grouped_quantized.cu; `first`: a weight of these, for what they share.
template <DeviceKind>
void grouped_quantized(const GroupedArgs& args, const QuantizedProductArgs& first);
// grouped_tiles.cu, of groups of medium_group_rows and, where a block may have so much shared memory, large_group_rows.
// Take those below where they can.
template <DeviceKind>
void grouped_tiles(const GroupTilesArgs& args);
template <DeviceKind>
void grouped_gradient_tiles(const GroupTilesArgs& args);
template <DeviceKind>
bool takes_large_groups();
// grouped_tiles_sm_90a.cu: the same with the same bits. False, and nothing done, where the card has no wgmma, or bulk
// copies cannot serve the operands: rows at no multiples of 16 bytes, dense weights without maps.
template <DeviceKind>
bool grouped_tiles_by_wgmma(const GroupTilesArgs& args);
template <DeviceKind>
bool grouped_gradient_by_wgmma(const GroupTilesArgs& args);
// The map of a dense weight [rows, columns] of 16 bits for these, to memory of the host. False, and nothing done, where
// they would not take it.
template <DeviceKind>
bool make_weight_map(unsigned char* map, const ProductMatrix& weight, int64_t rows, int64_t columns);
// table_rows.cu; `first` as above.
template <DeviceKind>
void quantized_table_rows(const TableRowsArgs& args, const QuantizedProductArgs& first);

}  // namespace lathe::kernels
