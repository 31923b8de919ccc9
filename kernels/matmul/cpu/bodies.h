// What the CPU bodies of a product get, and their declarations.
#pragma once

#include <cstdint>

#include "kernels/matmul/arguments.h"
#include "kernels/matmul/cpu/blocking.h"
#include "kernels/simd/isa.h"

namespace lathe::kernels {

// Packs tiles [first_tile, last_tile) of k steps [first_step, last_step): tile i goes to packed + i · tile_stride words
// as [k steps][rows of the tile] (times left_words), or for AMX as [k steps / 16][left_rows][16]. Up to 16 words past a
// tile's end are overwritten.
struct PackLeftArgs {
  ProductMatrix left;
  bool transposed;  // [k][m] in memory, otherwise [m][k]
  int64_t k;
  int64_t row_offset;  // of the tiling in `left`
  gemm::Tiling tiling;
  int64_t first_tile, last_tile, first_step, last_step;
  uint32_t* packed;
  int64_t tile_stride;
  bool by_chain = false;  // as nf4's tables want it: [k steps / 16][rows][chain_steps][4 chains]
};

// A row's second pair: the number of the pair, and its packed words of the left operand.
struct SecondRow {
  int64_t pair;
  const uint32_t* left;
};

// Tiles × panels of a product over k steps [first_step, last_step). `begins` starts the sums, otherwise they are added
// to `accumulators`; `ends` adds the second pair of operands and writes out.
struct MultiplyTilesArgs {
  const ProductArgs* product;
  int64_t row_offset;
  gemm::Tiling tiling;
  int64_t first_tile, last_tile, first_panel, last_panel, first_step, last_step;
  bool begins, ends;
  const uint32_t* left;
  int64_t left_tile_stride;
  const uint32_t* left2;
  int64_t left2_tile_stride;
  const SecondRow* second_rows;  // of the tiling's rows, in place of left2, where product->second_pairs are given
  int64_t panels_at_once;        // 1 … most_panels_at_once
  float* accumulators;           // of the first panel and tile: [tile_rows][panel_width]
  int64_t accumulator_panel_stride, accumulator_tile_stride;
  bool accumulators_of_all;  // from first_panel on; otherwise the next panels_at_once overwrite them
  uint32_t* panel;           // panels_at_once · k_block_steps · panel_width words for panels packed on the way
  int64_t second_steps;      // k_steps of the second pair, or of the longest of several
  uint32_t* panel2;          // for second pairs, of each of panels_at_once: second_steps · panel_width for each pair
};

// out [rows, n] = scale · left · rightᵀ, of a matrix [n, k] in panels of narrow_width of its rows (narrow_panels.h).
struct ShrinkArgs {
  DType dtype;  // of all three: f32, or bf16 and an even k
  int64_t rows, k, n;
  ProductMatrix left = {}, out = {};
  const uint32_t* panels = nullptr;
  float scale = 1.0f;
};

// Whether the few rows of a product meet codes that are decoded in registers. AMX multiplies what lies in memory.
LATHE_INLINE bool decodes_in_registers(const ProductArgs& product, Isa isa) {
  return !gemm::by_amx(isa, product.dtype) && product.panels.group > 0 && product.layout == ProductLayout::rows_rows &&
         product.m <= gemm::most_rows_decoded_in_registers;
}
// Whether they are looked up in tables, which want the left operand by_chain.
LATHE_INLINE bool decodes_by_tables(const ProductArgs& product, Isa isa) {
  return decodes_in_registers(product, isa) && gemm::chains(isa, product.dtype) > 1 &&
         with_format(product.panels.format, []<class Format>() { return Format::has_pair_tables; });
}

// pack_left.cpp. Those of Isa::amx, in ../amx, are for bf16 alone.
template <Isa>
void pack_left(const PackLeftArgs& args);
// tiles.cpp.
template <Isa>
void multiply_tiles(const MultiplyTilesArgs& args);
// shrink.cpp.
template <Isa>
void shrink_rows(const ShrinkArgs& args);

}  // namespace lathe::kernels
