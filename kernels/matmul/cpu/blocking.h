// How a product is cut on the CPU, and the order of its sums: for what cuts it (schedule.cpp) and for the bodies of
// every instruction set.
//
// A k step is 4 bytes along k, a word: one f32, or two bf16 that are neighbours along k (an odd k ends in a pair whose
// second half is zero). The right operand is streamed from panels [k steps][panel_width] of words, the left one from
// tiles [k steps][rows of the tile]. A tile never holds rows that are not there, so that nothing is computed twice and
// no NaN comes out of padding.
#pragma once

#include <cstdint>

#include "core/dtype.h"
#include "kernels/matmul/weights/panels.h"
#include "kernels/simd/inline.h"
#include "kernels/simd/isa.h"

namespace lathe::kernels::gemm {

LATHE_INLINE constexpr int64_t k_steps(int64_t k, DType dtype) { return dtype == DType::bf16 ? (k + 1) / 2 : k; }

// How m rows are cut into tiles: as evenly as can be, so that 16 rows are 8 + 8 and not 14 + 2.
struct Tiling {
  int64_t rows;
  int64_t tiles;
  LATHE_INLINE int64_t first_row(int64_t tile) const {
    return tile * (rows / tiles) + (tile < rows % tiles ? tile : rows % tiles);
  }
};

// Whether a product's sums are made by AMX (kernels/simd/amx.h), whose tiles hold 16 rows or columns and 16 k steps.
LATHE_INLINE constexpr bool by_amx(Isa isa, DType dtype) { return isa == Isa::amx && dtype == DType::bf16; }
inline constexpr int64_t amx_side = 16;
LATHE_INLINE constexpr int64_t whole_amx_sides(int64_t count) { return (count + amx_side - 1) / amx_side * amx_side; }

// Rows that the kernel of an instruction set keeps in registers.
LATHE_INLINE constexpr int tile_rows(Isa isa, DType dtype) {
  if (by_amx(isa, dtype)) return 32;
  switch (isa) {
    case Isa::baseline: return 4;
    case Isa::avx2: return 6;
    case Isa::avx512:
    case Isa::avx512_bf16:
    case Isa::amx: return 14;
  }
  return 4;
}

// Words of the packed left operand for one k step of one row. Without a bf16 dot product, bf16 is packed as the two f32
// that it means: that way the kernel broadcasts straight from memory.
LATHE_INLINE constexpr int64_t left_words(Isa isa, DType dtype) {
  return dtype == DType::bf16 && !multiplies_bf16(isa) ? 2 : 1;
}

// Rows and k steps that a packed tile has room for. For AMX they are whole squares of [16 rows][16 k steps], filled up
// with zeros, one after the other along k, those of 32 rows in twos; a tile of one row is that row as it is.
LATHE_INLINE constexpr int64_t left_rows(Isa isa, DType dtype, int64_t rows) {
  return by_amx(isa, dtype) && rows > 1 ? whole_amx_sides(rows) : rows;
}
LATHE_INLINE constexpr int64_t left_steps(Isa isa, DType dtype, int64_t steps) {
  return by_amx(isa, dtype) ? whole_amx_sides(steps) : steps;
}

// The order of the sums. A k block makes `chains` chains, each a sum from zero on, which are added to the total in
// order; its k steps go to the chains in turn, chain_steps at a time. There are four chains where nf4 becomes pairs of
// bf16 by lookup tables: a table serves one row of the weight, so that a vector holds few rows and several places along
// k, whose sums cannot be one chain. A chain that gets no k step is left out.
//
// AMX has its own order: of every 16 k steps a chain over the pairs' first halves and one over the second ones, both
// from zero, whose sum is added to the total.
inline constexpr int64_t chain_steps = 4;
LATHE_INLINE constexpr int chains(Isa isa, DType dtype) {
  return dtype == DType::bf16 && isa == Isa::avx512_bf16 ? 4 : 1;
}

// k steps of a k block, which the loops over tiles stay in: 64 KB of a panel (256 and 1024 steps were within 2 %, 128
// lost 3 to 6 %), or 128 KB where they make four chains: adding those up takes time, too.
// A chain has 512 terms. One chain over all of k lost 20 times as much: in f32, the gradients of SmolLM2's last layer,
// which come out of a sum over 49152 words, were 4e-4 from their values in f64; they are 2e-5 (PyTorch's: 6e-5).
// AMX: 256, so that 32 rows of the left operand stay in the first-level cache; its order has no blocks.
LATHE_INLINE constexpr int64_t k_block_steps(Isa isa, DType dtype) {
  return by_amx(isa, dtype) ? 256 : chains(isa, dtype) == 1 ? 512 : 1024;
}

// Panels that a tile meets one after the other: 256 KB of their k blocks in the second-level cache.
inline constexpr int64_t most_panels_at_once = 4;

// Up to so many rows, codes are decoded in registers; with more, a decoded panel that all tiles read costs less.
inline constexpr int64_t most_rows_decoded_in_registers = 4;

}  // namespace lathe::kernels::gemm
