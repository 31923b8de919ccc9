// What a warp does with matrix tiles: ldmatrix and mma.sync. The instructions stand in kernels/cuda/ptx.h.
#pragma once

#include <cstdint>

#include "kernels/simt/collectives.h"

namespace lathe::simt {

// ldmatrix of `count` 8×8 matrices; see ldmatrix_x4.
void load_matrices(uint32_t* registers, int count, const void* row, bool transposed, Where where);

// mma.sync with f32 sums: bf16 and f16 by the formula of tensor_sum.h, so that they have wgmma's bits; tf32 one
// ascending chain of fused multiply-adds for each element, where the hardware adds in wider words and another order,
// which the harness's bounds allow for.
enum class TileElement { bf16, f16, tf32 };
void multiply_tiles(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], TileElement element, Where where);
void multiply_tiles(int32_t (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Where where);  // s8

}  // namespace lathe::simt
