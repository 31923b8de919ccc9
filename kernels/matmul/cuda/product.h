// The CUDA bodies of matmul.h. Pointers are device memory; strides are in elements, between rows.
#pragma once

#include <cstdint>

#include "core/dtype.h"
#include "kernels/cuda/dispatch.h"

namespace lathe::kernels {

struct MatrixCuda {
  void* data = nullptr;  // null: not there
  int64_t stride = 0;
  DType dtype = DType::f32;
};

// How the operands lie. Left: rows of [m, k]. Right: rows_rows [n, k] (a weight in the forward), rows_plain [k, n] (a weight in
// the gradient of its input). columns_plain: left [k, m], right [k, n] (the gradient of a weight).
enum class ProductLayout : uint8_t { rows_rows, rows_plain, columns_plain };

// out [m, n] = scale · (left · right (+ left2 · right2)) (+ bias [n]) (+ residual [m, n], may be out).
struct ProductCuda {
  ProductLayout layout;
  DType dtype;  // f32 | bf16 | f16, of the operands
  int64_t m, n, k;
  MatrixCuda left, right;
  int64_t k2 = 0;  // 0: no second pair, which is laid out as the first
  MatrixCuda left2, right2;
  float scale = 1.0f;
  MatrixCuda bias, residual, out;  // f32 or the operands' dtype
  // columns_plain only: k is cut at these bounds (on the host); the sums of its parts are scaled and added to residual in order.
  const int32_t* cu_seqlens = nullptr;
  int64_t sequences = 0;
};

}  // namespace lathe::kernels

LATHE_CUDA_BODY(product_tiles, ProductCuda)      // bf16, f16
LATHE_CUDA_BODY(product_tiles_f32, ProductCuda)  // f32
