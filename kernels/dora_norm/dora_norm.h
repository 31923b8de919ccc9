// The norms of DoRA (Liu et al. 2024): n = ‖w + s·b·A‖ of each row w of a weight W [N, K] and b of B [N, r], without
// that matrix. A constant in the gradient, as PEFT has it.
//
//   n² = ‖w‖² + 2s · Σ_j b_j (A·w)_j + s² · Σ_j b_j Σ_k (A·Aᵀ)_jk b_k
//
// W is frozen, so that ‖w‖² is found once (row_squares). While A and B train, each step has two products for it, A·Wᵀ
// and A·Aᵀ, of r rows whatever W is held as (kernels/matmul/matmul.h), and r² multiply-adds a row here: little beside
// the products of a step's tokens, which are more than r.
//
// Precision: ‖w‖² is a sum in f64, and so are the sums over j and k. The two products are f32's. With ε, how far such a
// sum of K terms is off beside the lengths of its vectors (at most K · 2^-24, some √K times less as a rule), and
// L = |s| Σ_j |b_j| ‖a_j‖, which is no less than the length of what is added to w, n² is off by at most
// ε · L · (2‖w‖ + L): relative to n² by some 2ε · L/‖w‖ while the adapter is small beside its weight, as adapters are.
// The three terms cancel where w + s·b·A is much shorter than w: n is good to √(ε · L · (2‖w‖ + L)) there, and 0 where
// n² comes out negative. (W + s·B·A rounded to bf16 before its norm is taken, as PEFT has it in bf16, is off by up to
// 2^-9 of each element.) By a GGUF file's blocks on the CPU ε is larger (kernels/matmul/weights/ggml/ggml_weight.h):
// the product rounds A, by up to 2^-15, and not the weight, which ‖w‖² is of as the dtype has it: 2^-9 in bf16.
#pragma once

#include "core/tensor.h"

namespace lathe::kernels {

// squares f64 [N] = Σ x² of each row of rows [N, K], f32 | bf16 | f16 | (on the CPU) f64, whose elements are
// contiguous. In an order that depends on K alone: on the CPU one after another.
void row_squares(const Tensor& squares, const Tensor& rows);

// Contiguous, on one device. b f32 | bf16 | f16, squares f64 and all else f32; or, on the CPU, all f64.
struct DoraNorm {
  Tensor norm;      // [N], n rounded once; may be undefined
  Tensor inverse;   // [N], 1 ÷ norm, or 0 where that is 0; may be undefined
  Tensor squares;   // [N], ‖w‖²
  Tensor products;  // [r, N], A·Wᵀ
  Tensor gram;      // [r, r], A·Aᵀ, symmetric to the bit, as products of a matrix with itself are
  Tensor b;         // [N, r]
  float scaling = 1.0f;
};
// Sums run along k, then along j, in ascending order. A product of two f32 is exact in f64, so that the bits are the
// same with every instruction set and on every device.
void dora_norm(const DoraNorm& call);

}  // namespace lathe::kernels
