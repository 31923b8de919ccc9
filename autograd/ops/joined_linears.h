// Linears of one input, some with a LoRA term for all rows, as one operation: the bits of linear() (autograd/ops/
// linear.h) of each in turn, and of their backwards in the reverse order. What several terms do with x is one product,
// which reads x once:
//
//   [t₀ t₁ …] = s · x·[A₀; A₁; …]ᵀ        [dA₀; dA₁; …] += [dt₀ dt₁ …]ᵀ·x
//
// With dropout each term has a mask of its own for x, and the products of several still read it once
// (kernels/lora_dropout/lora_dropout.h).
//
// The gradient of x stays a sum of one product after another (each with its term inside), rounded after each: that is
// its order of sums whether linears are joined or not.
#pragma once

#include <span>
#include <vector>

#include "autograd/ops/linear.h"

namespace lathe::autograd {

struct JoinedLinear {
  LinearWeight weight;                  // frozen
  Tensor bias;                          // [N], frozen; may be undefined
  Variable a, b;                        // [r, K] and [N, r], or both undefined: the weight alone
  kernels::DropoutParams dropout = {};  // of x before a: probability 0 for all linears, or for none
};

// Matrices of one dtype and width, without gaps one below the other in one storage, as the one that they are;
// undefined where they do not lie so.
Tensor rows_together(std::span<const Tensor> matrices);

// x [T, K] → [T, N] of each, of x's dtype, with one `scale` of all terms. Without dropout the A factors lie together
// (rows_together). Their gradients are one product where they lie together as well, else one each, to the same bits.
std::vector<Variable> joined_linears(const Variable& x, std::span<const JoinedLinear> linears, float scale,
                                     const SequenceLayout& layout);

}  // namespace lathe::autograd
