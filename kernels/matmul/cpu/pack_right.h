// Panels of the right operand, packed on the way of a product. For this folder's sources only.
#pragma once

#include "kernels/matmul/cpu/bodies.h"

namespace lathe::kernels::LATHE_ISA {

// All of them: k steps [first, last) of panel `panel` to words [last − first][panel_width].

// Of a dense operand [n columns, k reduced], which lies as `layout` says.
void pack_dense_panel(const ProductMatrix& right, ProductLayout layout, int64_t k, int64_t n, int64_t panel,
                      int64_t first, int64_t last, uint32_t* words);
// Of the product's weight, whose panels are of codes, or lie along the reduced index (ProductLayout::rows_plain). In
// that case `first` is a multiple of 64.
void pack_weight_panel(const ProductArgs& product, int64_t panel, int64_t first, int64_t last, uint32_t* words);

}  // namespace lathe::kernels::LATHE_ISA
