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
};

struct GatedProductArgs {
  Activation activation;
  DType dtype;  // bf16 | f16, of every matrix
  int64_t m, n, k;
  ProductMatrix left, gate, up, out;  // [m, k], [n, k], [n, k], [m, n]
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

}  // namespace lathe::kernels
