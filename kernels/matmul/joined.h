// Products of one input by several weights: q, k and v, or gate and up. On a device a few rows of 16 bits by dense
// weights are one launch, which keeps more memory busy than one after another would; elsewhere they are products of
// their own. The bits are those of linear_forward for each.
#pragma once

#include <span>

#include "kernels/gated/activation.h"
#include "kernels/matmul/matmul.h"

namespace lathe::kernels {

struct JoinedProduct {
  Tensor out;        // [M, N]
  Weight weight;     // [N, K]
  Tensor bias = {};  // [N], or undefined
};
// out = x [M, K] · weightᵀ (+ bias) for each.
void joined_linear_forward(const Tensor& x, std::span<const JoinedProduct> products);

// out [M, F] = act(x · gateᵀ) · (x · upᵀ), both products rounded to x's dtype first: linear_forward twice, and
// swiglu_forward or geglu_forward (kernels/gated/gated.h).
void gated_linear_forward(const Tensor& out, const Tensor& x, const Weight& gate, const Weight& up,
                          Activation activation);

}  // namespace lathe::kernels
