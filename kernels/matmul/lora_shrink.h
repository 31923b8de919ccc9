// t = scale · x·Aᵀ of rows that have the As of different adapters: the shrinking half of LoRA in a batch that mixes
// them (Punica: Chen et al. 2023). The bits of matmul() of each (kernels/matmul/matmul.h), all of them in one parallel
// region: one after the other a decode step's are too small for all threads. On the CPU.
#pragma once

#include <span>

#include "core/tensor.h"
#include "kernels/matmul/weights/packed/narrow_panels.h"

namespace lathe::kernels {

struct LoraShrink {
  Tensor t;  // [M, r]
  Tensor x;  // [M, K], of a's dtype; rows may lie apart
  NarrowPanels a;
  float scale = 1.0f;
};

void lora_shrink(std::span<const LoraShrink> each);

}  // namespace lathe::kernels
