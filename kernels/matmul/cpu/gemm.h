// The one product that every entry of matmul.h becomes, and the bodies that compute it. Internal to this folder.
//
// out [m, n] = scale · (left · right (+ left2 · right2)) (+ bias) (+ residual), reduced over k, then k2.
//
// The kernels count k in units of 4 bytes: one f32, or two bf16 that are neighbours along k (an odd k ends in a unit
// whose second half is zero). Right operands are streamed from panels [units][panel_width] of such units, left operands
// from tiles [units][rows of the tile]. A tile never holds rows that are not there, so that nothing is computed twice and
// no NaN comes out of padding.
//
// Functions here are inlined always: no copy compiled with wider instructions may serve a smaller machine.
#pragma once

#include <cstdint>

#include "kernels/matmul/weights/quantized_weight.h"
#include "kernels/simd/dispatch.h"
#include "kernels/simd/inline.h"

namespace lathe::kernels::gemm {

inline constexpr int64_t panel_width = 32;

enum class Element : uint8_t { f32, bf16 };

LATHE_INLINE constexpr int64_t units_of(int64_t k, Element element) {
  return element == Element::bf16 ? (k + 1) / 2 : k;
}

// rows: [n][k], a dense weight. plain: [k][n]. panels: PackedWeight's. panels_transposed: PackedWeight's of a weight
// [k, n], read along its rows. quantized, quantized_transposed: QuantizedWeight's panels, in the same two ways.
enum class RightLayout : uint8_t { panels, panels_transposed, rows, plain, quantized, quantized_transposed };

// A group of QuantizedWeight's panels: scales, then codes.
inline constexpr int64_t quantized_scale_bytes = panel_width * 4;
LATHE_INLINE constexpr int64_t quantized_group_bytes(QuantizedFormat format, int64_t group) {
  return quantized_scale_bytes + panel_width * (format == QuantizedFormat::nf4 ? group / 2 : group);
}
// Codes are decoded in squares of 32 neighbours along k (chain_run · 4 units of bf16).
inline constexpr int64_t decoded_k = 32;
// nf4: the four rows q, q + 4, q + 8, q + 12 of each half of a panel lie together, because a vector has room for four tables: 64 bytes
// for each 32 neighbours, 16 for a row, 4 of those for a run of eight neighbours, whose pair j is the j-th half-byte of two words.
LATHE_INLINE constexpr int64_t nf4_four_bytes(int64_t group) { return group * 2; }
struct Nf4Place {
  int64_t byte;
  int shift;
};
LATHE_INLINE constexpr Nf4Place nf4_place(int64_t lane, int64_t k, int64_t group) {
  const int64_t four = lane / 16 * 4 + lane % 4, row = lane % 16 / 4;
  const int64_t run = k % decoded_k / 8, pair = k % 8 / 2;
  return {four * nf4_four_bytes(group) + k / decoded_k * 64 + row * 16 + run * 4 + k % 2 * 2 + pair / 2,
          static_cast<int>(pair % 2 * 4)};
}
// int8: two neighbours of each of the 32 rows, then the next two.
LATHE_INLINE constexpr int64_t int8_place(int64_t lane, int64_t k) {
  return (k / 2 * panel_width + lane) * 2 + k % 2;
}

struct Left {
  const void* data;
  int64_t stride;  // elements from row to row: [m][k], or [k][m] when transposed
  bool transposed;
};

struct Right {
  const void* data;
  int64_t stride;  // rows, plain: elements from row to row; panels: units of a panel; quantized: bytes of a panel
  RightLayout layout;
  QuantizedFormat format = QuantizedFormat::nf4;  // quantized
  int64_t group = 0;
};

// m = rows of out, or anything else that is read and written through a pointer of either dtype.
struct Matrix {
  void* data;
  int64_t stride;
  Element element;
};

struct Problem {
  int64_t m, n, k;
  Element element;
  Left left;
  Right right;
  int64_t k2;  // 0: no second pair of operands
  Left left2;
  Right right2;
  float scale;
  Matrix bias;      // [n], data may be null
  Matrix residual;  // [m, n], data may be null; may be out
  Matrix out;
};

// How m rows are cut into tiles: as evenly as can be, so that 16 rows are 8 + 8 and not 14 + 2.
struct Tiling {
  int64_t rows;
  int64_t tiles;
  LATHE_INLINE int64_t first_row(int64_t tile) const {
    return tile * (rows / tiles) + (tile < rows % tiles ? tile : rows % tiles);
  }
};

// Rows that the kernel of an instruction set keeps in registers.
LATHE_INLINE constexpr int tile_rows(Isa isa) {
  switch (isa) {
    case Isa::baseline: return 4;
    case Isa::avx2: return 6;
    case Isa::avx512:
    case Isa::avx512_bf16: return 14;
  }
  return 4;
}

// 4-byte words of a packed left unit and row. Without a bf16 dot product, bf16 is packed as the two f32 that it means:
// that way the kernel broadcasts straight from memory.
LATHE_INLINE constexpr int64_t left_words(Isa isa, Element element) {
  return element == Element::bf16 && isa != Isa::avx512_bf16 ? 2 : 1;
}

// The order of the sums. A slab of units makes `chains` chains, each a sum from zero on, which are added to the total in order: runs
// of chain_run units go to them in turn. Four where codes of nf4 become pairs by tables: a table serves one row of the weight, so that
// a vector holds few rows and several places along k, whose sums cannot be one chain. A chain that gets no unit is left out.
inline constexpr int64_t chain_run = 4;
LATHE_INLINE constexpr int chains(Isa isa, Element element) {
  return element == Element::bf16 && isa == Isa::avx512_bf16 ? 4 : 1;
}

// Packs tiles [first_tile, last_tile) of units [first_unit, last_unit): tile i goes to packed + i · tile_stride words
// as [units][rows of the tile] (times left_words). Up to 16 words past a tile's end are overwritten.
struct PackLeft {
  Left left;
  Element element;
  int64_t k;
  int64_t row_offset;  // of the tiling in `left`
  Tiling tiling;
  int64_t first_tile, last_tile, first_unit, last_unit;
  uint32_t* packed;
  int64_t tile_stride;
  bool turned = false;  // as tables want it: [units / 16][rows][chain_run][4], so that four runs' words are neighbours
};

// Tiles × panels of a problem over units [first_unit, last_unit). `begins` starts the sums, otherwise they are added to
// `accumulators`; `ends` adds the second pair of operands and writes out.
struct Block {
  const Problem* problem;
  int64_t row_offset;
  Tiling tiling;
  int64_t first_tile, last_tile, first_panel, last_panel, first_unit, last_unit;
  bool begins, ends;
  const uint32_t* left;
  int64_t left_tile_stride;
  const uint32_t* left2;
  int64_t left2_tile_stride;
  float* accumulators;               // [panel − first_panel][tile − first_tile][tile_rows][panel_width]
  int64_t accumulator_panel_stride;  // 0: the next panel overwrites them
  uint32_t* slab;                    // slab_units · panel_width words for panels packed on the way
  uint32_t* slab2;                   // units_of(k2) · panel_width
};

// Up to so many rows codes are decoded in registers; with more, a dequantised slab that is used again costs less.
inline constexpr int64_t fused_rows = 4;
LATHE_INLINE bool fuses_codes(const Problem& problem) {
  return problem.right.layout == RightLayout::quantized && problem.m <= fused_rows;
}
LATHE_INLINE bool uses_tables(const Problem& problem, Isa isa) {
  return fuses_codes(problem) && problem.right.format == QuantizedFormat::nf4 && chains(isa, problem.element) > 1;
}

// Units of a panel that the loops over tiles stay in: 64 KB (256 and 1024 units were within 2 %, 128 lost 3 to 6 %), or 128 KB where they
// make four chains: adding those up takes time, too.
// Chains are of 512 elements. One over everything lost 20 times as much: in f32, the gradients of SmolLM2's last layer, which come out
// of a sum over 49152 words, were 4e-4 from their values in f64; they are 2e-5 (PyTorch's: 6e-5).
LATHE_INLINE constexpr int64_t slab_units(Isa isa, Element element) {
  return chains(isa, element) == 1 ? 512 : 1024;
}

// f32 rows [count][columns] into PackedWeight's panels, from row `first` on.
struct PackRows {
  uint32_t* panels;
  Element element;
  int64_t columns, first, count;
  const float* rows;
};
struct UnpackRows {
  const uint32_t* panels;
  Element element;
  int64_t columns, first, count;
  float* rows;
};

// Computes a problem on the thread pool (gemm.cpp).
void run(const Problem& problem);

}  // namespace lathe::kernels::gemm

LATHE_CPU_BODY(gemm_pack_left, const lathe::kernels::gemm::PackLeft&)
LATHE_CPU_BODY(gemm_block, const lathe::kernels::gemm::Block&)
LATHE_CPU_BODY(gemm_pack_rows, const lathe::kernels::gemm::PackRows&)
LATHE_CPU_BODY(gemm_unpack_rows, const lathe::kernels::gemm::UnpackRows&)
