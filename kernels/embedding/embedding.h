// out[t, :] = weight[ids[t], :], and the gradient that scatters back.
#pragma once

#include "core/tensor.h"
#include "kernels/matmul/matmul.h"

namespace lathe::kernels {

// out [T, H], weight [V, H] of out's dtype (f32 | bf16 | f16 | f16; f64 on the cpu), rows contiguous. ids i32 [T] on
// the cpu, where an id outside [0, V) throws ShapeError naming it, or on the weight's device, where it gives a row of
// NaN.
void embedding_forward(const Tensor& out, const Tensor& weight, const Tensor& ids);
// The same from a packed weight (a tied output embedding is stored once).
void embedding_forward(const Tensor& out, const PackedWeight& weight, const Tensor& ids);
// The same from a GGUF file's blocks: the values that they stand for, rounded to out's dtype.
void embedding_forward(const Tensor& out, const GgmlWeight& weight, const Tensor& ids);

// grad_weight [V, H] f32 with grad_out [T, H] f32 | bf16 | f16, or both f64; ids on the cpu. grad_weight += for each
// sequence in order, the sum over its tokens t (ascending) with ids[t] = v of grad_out[t, :]. cu_seqlens i32 [S + 1]
// cuts the T tokens into sequences, so that the sum of a batch is the sum of its sequences whatever batch they came in.
void embedding_backward(const Tensor& grad_weight, const Tensor& grad_out, const Tensor& ids, const Tensor& cu_seqlens);

}  // namespace lathe::kernels
