// Products of one input where nothing is recorded (decode, prefill, evaluation): the bits of linear() one after the
// other, and of swiglu() or geglu() of them, in one pass over x (kernels/matmul/products.h).
#pragma once

#include <span>
#include <vector>

#include "autograd/ops/linear.h"
#include "kernels/gated/activation.h"
#include "kernels/matmul/weights/packed/narrow_panels.h"

namespace lathe::autograd {

// Of rows [begin, end): scale · x·Aᵀ·Bᵀ.
struct UnrecordedLora {
  int64_t begin, end;
  kernels::NarrowPanels a;
  kernels::PackedWeight b;
  float scale;
};

struct UnrecordedLinear {
  const LinearWeight& weight;
  Tensor bias, residual = {};             // as LinearTerms', may be undefined
  std::vector<UnrecordedLora> lora = {};  // ascending; rows between have the base weight alone. On the CPU
};

// x [T, K] → [T, N] of each.
std::vector<Variable> linear_each(const Variable& x, std::span<const UnrecordedLinear> linears);
// Rows [begin, end) of an input have linears of their own, without adapters: a mixture's experts.
struct RowsLinears {
  int64_t begin, end;
  std::vector<UnrecordedLinear> linears;
};
// x [R, K] → [R, N] of each of the rows' linears. All of x has as many, as wide ones.
std::vector<Variable> linear_each_of_rows(const Variable& x, std::span<const RowsLinears> rows);
// act(gate(x)) · up(x), without adapters.
Variable gated_linear(const Variable& x, const UnrecordedLinear& gate, const UnrecordedLinear& up,
                      kernels::Activation activation);

}  // namespace lathe::autograd
