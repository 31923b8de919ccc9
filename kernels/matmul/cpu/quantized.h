// Right operands that lie in QuantizedWeight's panels. For this folder's sources only.
#pragma once

#include "kernels/matmul/cpu/steps.h"

namespace lathe::kernels::LATHE_ISA {

// Elements [first_k, last_k) along the reduced index of panel `panel`, dequantised to `element`: slab
// [units of last_k − first_k][panel_width]. first_k and last_k are multiples of 32.
void dequantize_panel(const gemm::Right& right, gemm::Element element, int64_t panel, int64_t first_k, int64_t last_k,
                      uint32_t* slab);

// A tile with a quantised panel that is dequantised in registers, up to gemm::fused_rows rows. left holds the words of units
// [first_unit, last_unit), turned where gemm::uses_tables says so; then second follows, as in cpu.cpp's multiply_tile.
struct QuantizedStretch {
  const gemm::Right& right;
  int64_t panel, first_unit, last_unit;
  const uint32_t* left;
};
using QuantizedTileKernel = void (*)(const QuantizedStretch& first, Stretch second, float* accumulators, bool begins,
                                     int64_t columns);
QuantizedTileKernel quantized_kernel_for(const gemm::Right& right, gemm::Element element, int64_t rows);

}  // namespace lathe::kernels::LATHE_ISA
