// Panels of the right operand, packed on the way of a product. For this folder's sources only.
#pragma once

#include "kernels/matmul/cpu/bodies.h"

namespace lathe::kernels {

// Both: k steps [first, last) of a panel to words [last − first][panel_width].

// Panels [first_panel, last_panel) of a dense operand [n columns, k reduced], which lies as `layout` says, the next
// panel's words `distance` after the one before.
struct DensePanels {
  ProductMatrix right;
  ProductLayout layout;
  int64_t k, n, first_panel, last_panel;
};
template <Isa>
void pack_dense_panels(const DensePanels& panels, int64_t first, int64_t last, uint32_t* words, int64_t distance);
// Of the product's weight, whose panels are of codes or of bf16 to be widened, or lie along the reduced index
// (ProductLayout::rows_plain). In that case `first` is a multiple of 64.
template <Isa>
void pack_weight_panel(const ProductArgs& product, int64_t panel, int64_t first, int64_t last, uint32_t* words);

}  // namespace lathe::kernels
