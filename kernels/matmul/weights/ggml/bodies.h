// What the CPU bodies of products with ggml's blocks get, and their declarations.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/matmul/arguments.h"
#include "kernels/matmul/cpu/blocking.h"
#include "kernels/matmul/weights/ggml/ggml_formats.h"
#include "kernels/simd/isa.h"

namespace lathe::kernels::ggml {

// Up to so many rows, codes become integers in registers, once for each tile; with more, a stretch of a panel is
// unpacked for all of them. Unpacking a block takes 40 cycles where the products of four rows take 100 (AVX2, Zen 4):
// 8 rows are a tenth faster without it, 12 as fast or, Q6_K, a fifth slower. AVX-512 has tiles of 8: 12 rows are a
// sixth faster.
LATHE_INLINE constexpr int64_t most_direct_rows(Isa isa) {
  switch (isa) {
    case Isa::baseline: return 4;
    case Isa::avx2: return 8;
    case Isa::avx512:
    case Isa::avx512_bf16: return 12;
  }
  return 4;
}
// Rows of a tile, whose sums stay in registers.
LATHE_INLINE constexpr int tile_rows(Isa isa, bool direct) {
  switch (isa) {
    case Isa::baseline: return 2;
    case Isa::avx2: return 4;  // 6 fill all 16 registers: no faster, and a fifth slower where a block has two scales
    case Isa::avx512:
    case Isa::avx512_bf16: return direct ? 8 : 12;
  }
  return 2;
}

// What a row's block of 32 activations has beside its integers.
struct BlockScale {
  float scale, scaled_sum;  // scale · the sum of the integers
  int32_t sums[2];          // of the integers of the first and the last 16
};

// Activations as products read them. For each row and block of 32: 16 pairs of 16-bit integers (ggml_formats.h says
// which neighbours make a pair), and their scale and sums. Tile by tile, so that a tile's rows lie together: its pairs
// are [blocks][rows of the tile][16], its scales [blocks][rows of the tile].
struct QuantizedRows {
  uint32_t* pairs;
  BlockScale* scales;
  int64_t blocks;
  gemm::Tiling tiling;
  LATHE_INLINE uint32_t* tile_pairs(int64_t tile) const { return pairs + tiling.first_row(tile) * blocks * 16; }
  LATHE_INLINE BlockScale* tile_scales(int64_t tile) const { return scales + tiling.first_row(tile) * blocks; }
  LATHE_INLINE int64_t rows_of(int64_t tile) const { return tiling.first_row(tile + 1) - tiling.first_row(tile); }
};

// Tiles [first, last) of the rows of x f32 | bf16: the nearest integers to x / scale, even ones of two that are as
// near, scale = max |x| / 32767. A block with an infinity or a NaN has the scale NaN, one whose values are all below
// 2^-100 has zeros.
struct QuantizeRowsArgs {
  ProductMatrix x;
  QuantizedRows rows;
  int64_t first, last;
};

// out[row, column] = rows · weight (+ the row's second pair, continuing the sum) (+ bias) (+ residual), rounded once,
// for panels of 16 columns.
struct GgmlProductArgs {
  GgmlFormat format;
  const uint8_t* panels;
  int64_t panel_bytes;
  int64_t n;
  QuantizedRows left;
  std::span<const SecondPair> second_pairs;  // ascending
  ProductMatrix bias, residual, out;
};

struct GgmlTask {
  int64_t first_panel, last_panel, first_tile, last_tile;  // of most_task_rows at most
  uint8_t* unpacked;  // unpacked_bytes; null where codes become integers in registers
};

// Blocks that are unpacked at a time: 58 KB, which stay in the second-level cache beside most_task_rows of activations.
inline constexpr int64_t unpacked_blocks = 48;
inline constexpr int64_t unpacked_bytes = unpacked_blocks * (16 * 64 + 3 * 64);
inline constexpr int64_t most_task_rows = 132;

template <Isa>
void quantize_rows(const QuantizeRowsArgs& args);
template <Isa>
void multiply_blocks(const GgmlProductArgs& args, const GgmlTask& task);

}  // namespace lathe::kernels::ggml
