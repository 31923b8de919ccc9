// Packing on the way of a product. For this folder's sources only.
#pragma once

#include "kernels/matmul/cpu/gemm.h"

namespace lathe::kernels::LATHE_ISA {

// Units [first, last) of panel `panel` of a right operand [n columns, k reduced] that does not lie in panels:
// slab [last − first][panel_width]. first is a multiple of 64 where the layout is panels_transposed.
void pack_panel(const gemm::Right& right, gemm::Element element, int64_t k, int64_t n, int64_t panel, int64_t first,
                int64_t last, uint32_t* slab);

}  // namespace lathe::kernels::LATHE_ISA
