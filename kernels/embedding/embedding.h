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

// Which tokens are summed, and in which order: i32 [embedding_plan_length(T)] on the cpu, of those ids and bounds,
// where T > 0.
constexpr int64_t embedding_plan_length(int64_t tokens) { return 4 * tokens + 2; }
Tensor embedding_plan(const Tensor& ids, const Tensor& cu_seqlens);
// The same sums by a plan on the device of grad_weight, which is f32. What is launched depends on T alone, so that a
// captured step can be replayed with the plan of other ids. Nobody looks at it: its ids must be in [0, V).
void embedding_backward(const Tensor& grad_weight, const Tensor& grad_out, const Tensor& plan);

}  // namespace lathe::kernels
