// linear_forward (matmul.h) with a weight in ggml's blocks, x f32 | bf16. Checked already.
#pragma once

#include <span>

#include "kernels/matmul/arguments.h"
#include "kernels/matmul/matmul.h"

namespace lathe::kernels {

// second_pairs: those of the LoRA terms, in place of `terms`'. Ascending; rows between them have none.
void ggml_linear_forward(const Tensor& out, const Tensor& x, const GgmlWeight& weight,
                         std::span<const SecondPair> second_pairs, const LinearTerms& terms);

}  // namespace lathe::kernels
