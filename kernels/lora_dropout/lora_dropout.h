// LoRA's products with its dropout (kernels/dropout/dropout.h) inside: a mask is a function of sequence, position and
// column, so that it is applied where x is read, and dropout(x) is nowhere in memory. Several terms of one input read
// it once, each through its own mask.
//
//   shrink          t_j = scale · dropout_j(x)·A_jᵀ
//   gradient of A   dA_j += dt_jᵀ·dropout_j(x)
//   gradient of x   dx += dropout(dt·A)
//
// The bits of dropout() and matmul(), linear_weight_gradient() or matmul(), dropout() and add(), one term after another
// (kernels/matmul/matmul.h): dropout(x), dt·A and dropout(dt·A) are rounded to their dtype as if they were stored. On
// devices these are one pass for bf16 and f16 by ranks of at most 64 that are multiples of eight, where all rows begin
// at multiples of 16 bytes. Elsewhere they are those calls, with workspace for what they store.
#pragma once

#include <span>

#include "core/tensor.h"
#include "kernels/dropout/dropout.h"

namespace lathe::kernels {

// How the rows of x fall into samples: dropout()'s.
struct DroppedSequences {
  Tensor cu_seqlens;      // i32 [S + 1]
  Tensor sample_numbers;  // i32 [S]
};

// One dtype: f32 | bf16 | f16 (f64 on the cpu). Rows may lie apart.
struct DroppedShrink {
  Tensor t;  // [T, r]
  Tensor a;  // [r, K]
  DropoutParams dropout;
};
void dropped_shrink(const Tensor& x, std::span<const DroppedShrink> terms, float scale,
                    const DroppedSequences& sequences);

// Sums run over the tokens of a sequence, then over sequences, as linear_weight_gradient()'s.
struct DroppedGradient {
  Tensor grad_a;  // f32 (f64) [r, K], added to
  Tensor dt;      // [T, r], of x's dtype
  DropoutParams dropout;
};
void dropped_factor_gradients(const Tensor& x, std::span<const DroppedGradient> terms,
                              const DroppedSequences& sequences);

// grad_x [T, K], contiguous, += dropout(dt [T, r] · a [r, K]). grad_x may be f32 beside dt and a of 16 bits.
struct DroppedInputGradient {
  Tensor grad_x, dt, a;
  DropoutParams dropout;
};
void dropped_input_gradient(const DroppedInputGradient& call, const DroppedSequences& sequences);

}  // namespace lathe::kernels
