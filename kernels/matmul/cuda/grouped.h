// The CUDA bodies of products of few rows in groups, each by a weight of its own (kernels/matmul/grouped.h). Which
// weights, and how many rows, stands in device memory: a launch is for as many groups as there may be, and the blocks
// of those without rows end at once. Pointers are device memory.
//
// A block cannot ask for its weight before the kernel before it has ended, as those of few_rows.cu do: it does not know
// which one. By bulk copies and wgmma (few_rows_sm_90a.cu), with a tensor map of each expert in device memory, a block
// would have 96 KB under way where these have 42 to 48 in each of three: for a token of Qwen3-30B-A3B, whose launches
// are 384 and 512 blocks of 128 and 48 KB, next to nothing; what it would save is instructions, at nine rows and more.
#pragma once

#include "core/device.h"
#include "kernels/gated/bodies.h"
#include "kernels/matmul/arguments.h"
#include "kernels/matmul/cuda/quantized.h"

namespace lathe::kernels {

// What differs from weight to weight of dense ones; codes have a Place of their format.
struct DensePlace {
  const void* words;
};

struct GroupedWeights {
  const void* places;         // of the format's Place, by the weight's number
  const void* const* biases;  // [n] each, of the product's dtype; null: none has one
};

struct GroupedArgs {
  DType dtype;  // bf16 | f16, of all matrices
  int64_t n, k;
  ProductMatrix left, out;
  const int32_t *numbers,
      *bounds;     // of each group: its weight's number; its rows of out are [bounds[g], bounds[g + 1])
  int64_t groups;  // places for them, each of up to few_rows_most rows
  // Where the rows of left lie in the order of out's; null: they are those of out. Only where there is a gate.
  const int32_t* rows;
  GroupedWeights weights;  // gate's, where up has weights, too: out is act(gate) · up then
  GroupedWeights up = {};
  GateKind gate = GateKind::silu;
  bool is_gated() const { return up.places != nullptr; }
};

// grouped_dense.cu; the rows of all weights are `stride` elements apart and begin at multiples of 16 bytes.
template <DeviceKind>
void grouped_dense(const GroupedArgs& args, int64_t stride);
// grouped_quantized.cu; `first`: a weight of these, for what they share.
template <DeviceKind>
void grouped_quantized(const GroupedArgs& args, const QuantizedProductArgs& first);

}  // namespace lathe::kernels
