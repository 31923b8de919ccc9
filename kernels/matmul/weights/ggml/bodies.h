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
// sixth faster. AMX multiplies 10 to 12 rows as fast as AVX-512 in registers, 16 up to 1.5 times as fast, 8 at 0.6 to
// 0.7 times.
LATHE_INLINE constexpr int64_t most_direct_rows(Isa isa) {
  switch (isa) {
    case Isa::baseline: return 4;
    case Isa::avx2: return 8;
    case Isa::avx512:
    case Isa::avx512_bf16:
    case Isa::amx: return 12;
  }
  return 4;
}
// Rows of a tile, whose sums stay in registers, or in tiles of AMX.
LATHE_INLINE constexpr int tile_rows(Isa isa, bool direct) {
  switch (isa) {
    case Isa::baseline: return 2;
    case Isa::avx2: return 4;  // 6 fill all 16 registers: no faster, and a fifth slower where a block has two scales
    case Isa::avx512:
    case Isa::avx512_bf16: return direct ? 8 : 12;
    case Isa::amx: return direct ? 8 : 16;
  }
  return 2;
}

// What a row's block of 32 activations has beside its integers.
struct BlockScale {
  float scale, scaled_sum;  // scale · the sum of the integers
  int32_t sums[2];          // of the integers of the first and the last 16

  // Where a block has so many scales: scale · the sum that goes with a half's minimum.
  template <int scales>
  LATHE_INLINE float scaled_sum_of(int half) const {
    return scales == 1 ? scaled_sum : scale * static_cast<float>(sums[half]);
  }
};

// How a row's integers lie. An integer is 256 · high + low, 0 <= low < 256.
enum class Integers : uint8_t {
  // 16 pairs of 16-bit integers (ggml_formats.h says which neighbours make a pair).
  pairs,
  // Of few rows, where vpdpbusd is: the block's 32 high in bytes, its 32 low, and 128 · the sum of high.
  bytes,
  // Of many rows with AMX: 256 · high and low are numbers of bf16. 16 pairs of the block's 256 · high, then 16 of its
  // low.
  digits,
  // The same of the first 16 neighbours, 8 pairs and 8, then of the last: where each 16 have a scale and no wide codes
  // (has_wide_halves).
  digits_of_halves,
};
LATHE_INLINE constexpr int64_t words_of(Integers integers) {
  return integers == Integers::pairs ? 16 : integers == Integers::bytes ? 17 : 32;
}

// Activations as products read them: for each row and block of 32 their integers, scale and sums. Tile by tile, so that
// a tile's rows lie together: pairs are [blocks][rows of the tile][16], bytes [blocks][rows of the tile][17], digits
// [blocks][2][rows of the tile][16], scales [blocks][rows of the tile].
struct QuantizedRows {
  uint32_t* words;
  BlockScale* scales;
  int64_t blocks;
  gemm::Tiling tiling;
  Integers integers;
  LATHE_INLINE uint32_t* tile_words(int64_t tile) const {
    return words + tiling.first_row(tile) * blocks * words_of(integers);
  }
  LATHE_INLINE BlockScale* tile_scales(int64_t tile) const { return scales + tiling.first_row(tile) * blocks; }
  LATHE_INLINE int64_t rows_of(int64_t tile) const { return tiling.first_row(tile + 1) - tiling.first_row(tile); }
};
// AMX reads 16 rows of every tile: so many words lie behind the last one's, and so many scales.
inline constexpr int64_t words_behind = 16 * 16, scales_behind = 16;

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
  int64_t first_panel, last_panel, first_tile, last_tile;  // of TaskShape::rows at most
  uint8_t* workspace;          // TaskShape::workspace_bytes; null where codes become integers in registers
  int64_t prefetch_bytes = 0;  // how far ahead of the codes in use others are asked for; 0: not at all
};

// What a product of many rows is cut into. Blocks that are unpacked at a time: 61 KB at most, which stay in the
// second-level cache beside 132 rows of activations. With AMX up to 8 panels, 295 KB, which a tile's rows meet one
// after the other: 16 panels, half as many blocks or 512 rows were no faster.
struct TaskShape {
  int64_t rows, panels, workspace_bytes;
};
inline constexpr int64_t unpacked_blocks = 48;
inline constexpr int64_t amx_rows = 256, amx_panels = 8, amx_sums = 32;  // sums: blocks, or halves of blocks
inline constexpr int64_t amx_unpacked_bytes = amx_panels * amx_sums * (16 * 64 + 2 * 64);
LATHE_INLINE constexpr TaskShape task_shape(Isa isa) {
  if (isa == Isa::amx) return {amx_rows, amx_panels, amx_unpacked_bytes + amx_rows * amx_panels * panel_rows * 4};
  return {132, 1, unpacked_blocks * (16 * 64 + 4 * 64)};
}

template <Isa>
void quantize_rows(const QuantizeRowsArgs& args);
template <Isa>
void multiply_blocks(const GgmlProductArgs& args, const GgmlTask& task);

}  // namespace lathe::kernels::ggml
