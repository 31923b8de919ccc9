// Matrix products. An output element is a sum in f32 (f64 for f64) of fused multiply-adds along the reduced index. The
// index is cut into chains of 512 terms (bf16: 1024); a chain starts from zero and adds its terms in ascending order,
// and the chains' results are added in order. So the bits do not depend on the batch, the blocking, the threads or the
// packing. (Product and sum are rounded apart where the CPU has no fma.) Where the CPU multiplies pairs of bf16 (and
// takes subnormals for zero), each 2048 terms make four chains, which take eight terms each in turn; by AMX each 32 are
// two, of the even and the odd terms, whose sum is added to the total. A LoRA term continues the last chain.
//
// A weight in the blocks of a GGUF file (weights/ggml/ggml_weight.h) is multiplied as integers on the CPU, in an order
// of its own that depends on K alone, too; its gradient, and all its products on devices, are those of the dequantised
// weight.
//
// On cuda and simt: f32 has the same chains, and the bits of a CPU with fma; bf16 and f16 are one chain of the tensor
// cores' steps of sixteen, the same whatever the batch and the shape of tile.
//
// dtypes: x, weight and LoRA operands are all f32, all bf16, all f16 or (on the CPU) all f64; out, bias and residual
// are of that dtype or f32. out is rounded once. f16 on the CPU is widened to f32 on the way: correct, not fast.
// Everything lies on one device. Matrices may have rows that lie apart, their elements are contiguous. ShapeError
// otherwise.
#pragma once

#include <cstdint>
#include <vector>

#include "core/tensor.h"
#include "kernels/matmul/weights/weight.h"

namespace lathe::kernels {

// Rows [begin, end) of x with a LoRA term of their own.
struct LoraRows {
  int64_t begin, end;
  Tensor t;  // [end − begin, r]
  Weight b;  // [N, r], dense or packed
};

// What joins the product before the one rounding. Any member may be undefined.
struct LinearTerms {
  Tensor lora_t;                         // [M, r], x·Aᵀ already scaled; continues the last chain with lora_b
  Weight lora_b;                         // [N, r], dense or packed
  Tensor bias;                           // [N]
  Tensor residual;                       // [M, N], added last; may be out
  std::vector<LoraRows> lora_rows = {};  // in place of lora_t and lora_b: ascending, rows between them have none
};

// out [M, N] = x [M, K] · weightᵀ (+ lora_t · lora_bᵀ) (+ bias) (+ residual). Whatever terms other rows have, a row has
// the bits of a product with its own term alone. On the CPU lora_rows read the weight once, on devices once for each.
void linear_forward(const Tensor& out, const Tensor& x, const Weight& weight, const LinearTerms& terms = {});

struct LinearInputGradient {
  Tensor grad_x;    // [M, K]
  Tensor grad_out;  // [M, N]
  Weight weight;    // [N, K]
  Tensor lora_dt;   // [M, r], or undefined as lora_a
  Tensor lora_a;    // [r, K]
  bool accumulate = false;
};

// grad_x = grad_out · weight (+ lora_dt · lora_a) (+ grad_x when accumulate): the sum runs along n, then along r.
void linear_input_gradient(const LinearInputGradient& call);

// grad_weight f32|f64 [N, K] += Σ over sequences of cu_seqlens i32 [S + 1] (on the CPU), in order, of scale · (Σ over
// the sequence's tokens, ascending, grad_out[t, :]ᵀ x[t, :]). A batch of sequences gives the bits of the same sequences
// accumulated one by one.
void linear_weight_gradient(const Tensor& grad_weight, const Tensor& grad_out, const Tensor& x,
                            const Tensor& cu_seqlens, float scale = 1.0f);

// out [M, N] = scale · (a [M, K] · b), b given as [N, K] (transposed) or [K, N], dense or packed. Small products:
// LoRA's A and B.
enum class Layout { transposed, plain };
void matmul(const Tensor& out, const Tensor& a, const Weight& b, Layout b_layout, float scale = 1.0f);

}  // namespace lathe::kernels
