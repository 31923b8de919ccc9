// The CUDA bodies of several products at once (kernels/matmul/products.h). Pointers are device memory; strides are in
// elements, between rows.
#pragma once

#include "core/device.h"
#include "kernels/gated/activation.h"
#include "kernels/matmul/arguments.h"

namespace lathe::kernels {

inline constexpr int64_t few_rows_most = 16;
inline constexpr int joined_most = 3;  // products in a launch

struct JoinedProductArgs {
  DType dtype;  // bf16 | f16
  int64_t m, k;
  ProductMatrix left;  // [m, k]
  int count = 0;
  struct Part {
    int64_t n;
    ProductMatrix right, bias, out;  // [n, k], [n], [m, n]; f32 or dtype where not right
  } parts[joined_most] = {};
  bool right_at_rest = false;  // of all parts, as in ProductArgs
};

struct GatedProductArgs {
  Activation activation;
  DType dtype;  // bf16 | f16, of every matrix
  int64_t m, n, k;
  ProductMatrix left, gate, up, out;  // [m, k], [n, k], [n, k], [m, n]
  bool right_at_rest = false;         // gate and up
};

// Where the activated product of gate and up in codes goes: out [m, n] of the dtype of both.
struct GatedResult {
  Activation activation;
  ProductMatrix out;
};

// few_rows.cu: m ≤ few_rows_most.
template <DeviceKind>
void joined_products(const JoinedProductArgs& args);
template <DeviceKind>
void gated_products(const GatedProductArgs& args);

// few_rows_sm_90a.cu: the same and products of ProductArgs by wgmma, with the same bits, where the card has it and bulk
// copies can serve the operands; false, and nothing done, elsewhere.
template <DeviceKind>
bool few_rows_by_wgmma(const ProductArgs& args);
template <DeviceKind>
bool joined_by_wgmma(const JoinedProductArgs& args);
template <DeviceKind>
bool gated_by_wgmma(const GatedProductArgs& args);

}  // namespace lathe::kernels
