// The bodies of a block format (weights/formats.h), which its cpu.cpp defines for each instruction set. For
// kernels/matmul's cpu sources only.
#pragma once

#include "kernels/matmul/cpu/bodies.h"
#include "kernels/matmul/cpu/k_step.h"

namespace lathe::kernels::LATHE_ISA {

// Elements [first_k, last_k) along k of panel `panel`, decoded to `dtype`: words [k steps of last_k −
// first_k][panel_width]. Both are multiples of decode_chunk.
template <class Format>
void decode_panel(const WeightPanels& panels, DType dtype, int64_t panel, int64_t first_k, int64_t last_k,
                  uint32_t* words);

// k steps [first_step, last_step) of a panel of codes and the words of a tile, which are by_chain where
// decodes_by_tables says so.
struct CodeRange {
  const WeightPanels& panels;
  int64_t panel, first_step, last_step;
  const uint32_t* left;
};
// A tile of up to most_rows_decoded_in_registers rows: as multiply_tile of tiles.cpp, but codes are decoded in
// registers.
using CodeTileKernel = void (*)(const CodeRange& first, const SecondRange& second, float* accumulators, bool begins,
                                int64_t columns);
template <class Format>
CodeTileKernel code_tile_kernel(const WeightPanels& panels, DType dtype, int64_t rows);

}  // namespace lathe::kernels::LATHE_ISA
