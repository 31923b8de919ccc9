// What the bodies of a product get, on the CPU and on devices.
#pragma once

#include <cstdint>
#include <span>

#include "core/dtype.h"
#include "kernels/matmul/weights/formats.h"

namespace lathe::kernels {

// A matrix whose rows are contiguous, or a vector.
struct ProductMatrix {
  void* data = nullptr;  // null: not there
  int64_t stride = 0;    // elements from row to row
  DType dtype = DType::f32;
};

// A frozen weight as it lies in panels on the CPU (weights/), of words or of codes.
struct WeightPanels {
  const void* data = nullptr;  // null: not there
  int64_t panel_bytes = 0;
  int64_t group = 0;  // codes: neighbours along the weight's rows that share a scale; 0 for words
  QuantizedFormat format = QuantizedFormat::nf4;
  bool widens = false;  // words are pairs of bf16, and the product is one of f32
};

// How the operands lie. Left: rows of [m, k]. Right: rows_rows [n, k] (a weight in the forward), rows_plain [k, n] (a
// weight in the gradient of its input). columns_plain: left [k, m], right [k, n] (the gradient of a weight).
enum class ProductLayout : uint8_t { rows_rows, rows_plain, columns_plain };

// The second pair of operands for rows [begin, end) of the product; k 0: these rows have none.
struct SecondPair {
  int64_t begin, end;
  int64_t k = 0;
  ProductMatrix left, right;  // the first row of left is the product's row `begin`
  WeightPanels panels;        // in place of right: words
};

// out [m, n] = scale · (left · right (+ left2 · right2)) (+ bias [n]) (+ residual [m, n], may be out): reduced over k,
// then k2.
struct ProductArgs {
  ProductLayout layout;
  DType dtype;  // of the operands: f32 | bf16, on devices f16 too
  int64_t m, n, k;
  ProductMatrix left, right;
  WeightPanels panels;  // in place of `right`, in the layouts that have a weight there
  // On devices: no kernel that may still run writes `right`, as it is with a weight that was packed once.
  bool right_at_rest = false;
  int64_t k2 = 0;  // 0: no second pair, which is laid out as the first
  ProductMatrix left2, right2;
  std::span<const SecondPair> second_pairs;  // in place of that one, rows_rows on the CPU: ascending, every row once
  float scale = 1.0f;
  ProductMatrix bias, residual, out;  // f32 or the operands' dtype
  // columns_plain only: k is cut at these bounds (on the host); the sums of its parts are scaled and added to residual
  // in order.
  const int32_t* cu_seqlens = nullptr;
  int64_t sequences = 0;
};

}  // namespace lathe::kernels
