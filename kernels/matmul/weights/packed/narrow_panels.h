// The A of a LoRA, stored once in panels of 16 of its rows: in those of PackedWeight, which are twice as wide, one of
// rank 16 takes twice the bytes, and bytes are what bounds rows that each have another A.
#pragma once

#include <cstdint>

#include "core/tensor.h"

namespace lathe::kernels {

// Of a matrix [N, K]. Panel p holds rows [16p, 16p + 16), laid out as PackedWeight's otherwise: f32 [K][16], bf16
// [K/2][16][2], rows past N are zeros.
class NarrowPanels {
 public:
  NarrowPanels() = default;

  bool defined() const { return panels_.defined(); }
  int64_t rows() const { return rows_; }
  int64_t columns() const { return columns_; }
  DType dtype() const { return panels_.dtype(); }
  const Tensor& panels() const { return panels_; }  // [⌈N/16⌉, words of a panel]

 private:
  friend NarrowPanels pack_narrow(const Tensor& matrix, MemoryTag tag);
  int64_t rows_ = 0, columns_ = 0;
  Tensor panels_;
};

// Whether there are such panels: f32 on the CPU, or bf16 with an even K.
bool packs_narrow(const Tensor& matrix);
// ShapeError where not.
NarrowPanels pack_narrow(const Tensor& matrix, MemoryTag tag = MemoryTag::weights);

}  // namespace lathe::kernels
