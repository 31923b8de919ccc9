// linear_forward (matmul.h), linear_forward_each and gated_linear_forward (products.h) with weights in ggml's blocks,
// x f32 | bf16. Checked already.
#pragma once

#include <span>

#include "kernels/gated/activation.h"
#include "kernels/matmul/arguments.h"
#include "kernels/matmul/weights/ggml/ggml_weight.h"

namespace lathe::kernels {

struct GgmlProduct {
  const Tensor& out;
  const GgmlWeight& weight;
  std::span<const SecondPair> second_pairs;  // of its LoRA terms: ascending, rows between them have none
  const Tensor &bias, &residual;             // may be undefined
};

void ggml_linear_forward(const Tensor& x, std::span<const GgmlProduct> products);

// Products of inputs of their own in one parallel region, where each has so many rows.
struct GgmlGroupedProduct {
  const Tensor& x;
  GgmlProduct product;
};
bool ggml_groups(int64_t rows);
void ggml_linear_forward_grouped(std::span<const GgmlGroupedProduct> products);

void ggml_gated_linear_forward(const Tensor& out, const Tensor& x, const GgmlProduct& gate, const GgmlProduct& up,
                               Activation activation);

}  // namespace lathe::kernels
