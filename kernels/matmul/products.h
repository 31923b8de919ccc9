// Several products of one input: q, k and v, or gate and up. The bits of one linear_forward after the other, for any
// weights on any device. They are one pass where that gains: on the CPU by packed weights or ggml's blocks, without
// LoRA terms, x is packed or quantised once, and the panels of all weights are one parallel region; on a device a few
// rows of 16 bits by dense weights, without a residual and LoRA terms, or by codes of one format (nf4, int8, a GGUF
// file's), with one adapter or none, are one launch, which keeps more memory busy than one after another. With no terms
// at all, gate, up and their activation are one launch by any of these weights.
#pragma once

#include <span>

#include "core/tensor.h"
#include "kernels/gated/activation.h"
#include "kernels/matmul/matmul.h"

namespace lathe::kernels {

struct LinearProduct {
  Tensor out;  // [M, N]
  Weight weight;
  LinearTerms terms = {};
};

// linear_forward(out, x, weight, terms) of each.
void linear_forward_each(const Tensor& x, std::span<const LinearProduct> products);

// Products of inputs of their own, x [M, K] each: the experts' of a mixture. The bits of linear_forward of each. On the
// CPU those of few rows by packed weights or by ggml's blocks, without LoRA terms, are one parallel region of either
// kind; what else follows each other with one x goes through linear_forward_each.
struct GroupedProduct {
  Tensor x;
  LinearProduct product;
};
void linear_forward_grouped(std::span<const GroupedProduct> products);

// out [M, F] = act(gate.out) · up.out (kernels/gated/gated.h) of the products of x [M, K]; out may be either of theirs.
// Where it is one pass, gate.out and up.out may be left as they were.
void gated_linear_forward(const Tensor& out, const Tensor& x, const LinearProduct& gate, const LinearProduct& up,
                          Activation activation);

}  // namespace lathe::kernels
