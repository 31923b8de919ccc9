// Weights in ggml's blocks on a device (cuda, simt). Checked already.
#pragma once

#include <span>

#include "kernels/arguments/indices.h"
#include "kernels/matmul/arguments.h"
#include "kernels/matmul/cuda/few_rows.h"
#include "kernels/matmul/weights/ggml/ggml_weight.h"

namespace lathe::kernels::device {

// Whether products of x [M, K] read the blocks; of more rows they want a dense weight.
bool multiplies_blocks(const Tensor& x, const GgmlWeight& weight);

// linear_forward of several with one left operand: of 16 bits one launch for up to joined_most of a format.
struct BlocksProduct {
  ProductArgs args;  // right is not used
  const GgmlWeight* weight;
};
void multiply_blocks(std::span<const BlocksProduct> products, Device device);
// The activated product of two of 16 bits and one format, gate and up, without LoRA, bias or residual: one launch.
void multiply_gated_blocks(const BlocksProduct& gate, const BlocksProduct& up, const GatedResult& result,
                           Device device);

// out [count, K] f32 | bf16 | f16: the rows that `ids` names, or, where it is null, from first_row on.
void ggml_rows_of(const Tensor& out, const GgmlWeight& weight, const Indices* ids, int64_t first_row = 0);

}  // namespace lathe::kernels::device
