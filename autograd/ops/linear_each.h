// Products of one input where nothing is recorded (decode, prefill, evaluation): the bits of linear() one after the
// other, and of swiglu() or geglu() of them, in one pass over x (kernels/matmul/products.h).
#pragma once

#include <vector>

#include "autograd/ops/linear.h"
#include "kernels/gated/activation.h"

namespace lathe::autograd {

struct UnrecordedLinear {
  const LinearWeight& weight;
  Tensor bias, residual = {};  // as LinearTerms', may be undefined
};

// x [T, K] → [T, N] of each.
std::vector<Variable> linear_each(const Variable& x, const std::vector<UnrecordedLinear>& linears);
// act(gate(x)) · up(x).
Variable gated_linear(const Variable& x, const UnrecordedLinear& gate, const UnrecordedLinear& up,
                      kernels::Activation activation);

}  // namespace lathe::autograd
