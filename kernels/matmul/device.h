// Products on a device (cuda, simt).
#pragma once

#include "kernels/matmul/arguments.h"
#include "kernels/matmul/cuda/few_rows.h"
#include "kernels/matmul/cuda/quantized.h"
#include "kernels/matmul/weights/quantized_weight.h"

namespace lathe::kernels::device {

void multiply(const ProductArgs& args, Device device);

// Whether bodies for codes take x [M, K]: few rows, which lie at multiples of 16 bytes where x has 16 bits.
bool suits_codes(const Tensor& x);
// Whether they take this weight: K a multiple of 64, and blocks of 64 or more.
bool suits_codes(const QuantizedWeight& weight);
// Whether linear_forward multiplies x with this weight's codes: both suit. The other products want a dense weight of
// x's dtype in its place.
bool multiplies_codes(const Tensor& x, const QuantizedWeight& weight);
// With a quantised weight in place of args.right: linear_forward, and quantized_gemv.
void multiply_codes(const ProductArgs& args, const QuantizedWeight& weight, Device device);
// The same of several with one left operand, of 16 bits, and weights of one format: one launch for up to joined_most.
struct CodesProduct {
  ProductArgs args;
  const QuantizedWeight* weight;
};
void multiply_codes(std::span<const CodesProduct> products, Device device);
// The activated product of two such, gate and up, without LoRA, bias or residual: one launch.
void multiply_gated_codes(const CodesProduct& gate, const CodesProduct& up, const GatedResult& result, Device device);
// What the bodies get: a product, and the weight that is its right operand.
QuantizedProductArgs with_codes(const ProductArgs& product, const QuantizedWeight& weight);
void multiply_codes_gemv(const ProductArgs& args, const QuantizedWeight& weight, Device device);

}  // namespace lathe::kernels::device
