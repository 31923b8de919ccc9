// What follows a panel's sums: the rows' second pairs, bias, residual and the one rounding. For this folder's and
// amx/'s sources only.
#pragma once

#include "kernels/matmul/cpu/matrix_rows.h"
#include "kernels/matmul/weights/ggml/bodies.h"
#include "kernels/matmul/weights/ggml/cpu/decoders.h"

namespace lathe::kernels::LATHE_ISA {

// Rounded once in every instruction set: without FMA, in software.
LATHE_INLINE Vec fused(Vec a, Vec b, Vec c) {
#if defined(LATHE_AVX2) || defined(LATHE_AVX512)
  return fma(a, b, c);
#else
  Vec result;
  for (int i = 0; i < lanes; ++i) result[i] = __builtin_fmaf(a[i], b[i], c[i]);
  return result;
#endif
}

LATHE_INLINE float element(const ProductMatrix& matrix, int64_t row, int64_t column) {
  const char* p = row_of(matrix, row) + column * element_bytes(matrix);
  if (matrix.dtype == DType::f32) {
    float value;
    __builtin_memcpy(&value, p, 4);
    return value;
  }
  uint16_t half;
  __builtin_memcpy(&half, p, 2);
  const uint32_t bits = static_cast<uint32_t>(half) << 16;
  float value;
  __builtin_memcpy(&value, &bits, 4);
  return value;
}

// sums [row][16] += left · rightᵀ of a pair whose right operand lies in panels, for rows [begin, end), continuing their
// chains: a row's in registers, its columns read as they lie.
inline void add_panels_pair(const SecondPair& pair, int64_t panel, int64_t begin, int64_t end, float* sums) {
  using gemm::panel_width;
  const bool pairs = pair.left.dtype == DType::bf16;
  const int64_t first_column = panel * ggml::panel_rows;
  const auto* const words = reinterpret_cast<const uint32_t*>(static_cast<const char*>(pair.panels.data) +
                                                              first_column / panel_width * pair.panels.panel_bytes) +
                            first_column % panel_width;
  for (int64_t row = begin; row < end; ++row, sums += ggml::panel_rows) {
    Vec totals[ggml_vectors];
#pragma GCC unroll 4
    for (int v = 0; v < ggml_vectors; ++v) totals[v] = load(sums + v * lanes);
    for (int64_t r = 0; r < pair.k; ++r) {
      const Vec factor = splat(element(pair.left, row - pair.begin, r));
      const uint32_t* const step = words + (pairs ? r / 2 : r) * panel_width;
#pragma GCC unroll 4
      for (int v = 0; v < ggml_vectors; ++v) {
        const VecU word = load_words(step + v * lanes);
        const Vec right = !pairs ? (Vec)word : r % 2 == 0 ? first_of_pairs(word) : second_of_pairs(word);
        totals[v] = fused(factor, right, totals[v]);
      }
    }
#pragma GCC unroll 4
    for (int v = 0; v < ggml_vectors; ++v) store(sums + v * lanes, totals[v]);
  }
}

// The same for those of rows [first_row, last_row) that the pair is for, dense or in panels.
inline void add_second_pair(const SecondPair& pair, int64_t n, int64_t panel, int64_t first_row, int64_t last_row,
                            float* sums) {
  const int64_t begin = pair.begin > first_row ? pair.begin : first_row;
  const int64_t end = pair.end < last_row ? pair.end : last_row;
  if (begin >= end) return;
  if (pair.panels.data != nullptr)
    return add_panels_pair(pair, panel, begin, end, sums + (begin - first_row) * ggml::panel_rows);
  const int64_t first_column = panel * ggml::panel_rows;
  const int64_t columns = n - first_column < ggml::panel_rows ? n - first_column : ggml::panel_rows;
  for (int64_t r = 0; r < pair.k; ++r) {
    float of_columns[ggml::panel_rows] = {};
    for (int64_t j = 0; j < columns; ++j) of_columns[j] = element(pair.right, first_column + j, r);
    for (int64_t row = begin; row < end; ++row) {
      float* total = sums + (row - first_row) * ggml::panel_rows;
      const Vec factor = splat(element(pair.left, row - pair.begin, r));
      for (int v = 0; v < ggml_vectors; ++v)
        store(total + v * lanes, fused(factor, load(of_columns + v * lanes), load(total + v * lanes)));
    }
  }
}

inline void write_rows(const ggml::GgmlProductArgs& args, int64_t panel, int64_t first_row, int64_t last_row,
                       const float* sums) {
  const int64_t first_column = panel * ggml::panel_rows;
  const int64_t columns = args.n - first_column < ggml::panel_rows ? args.n - first_column : ggml::panel_rows;
  for (int64_t row = first_row; row < last_row; ++row) {
    const float* total = sums + (row - first_row) * ggml::panel_rows;
    for (int64_t j = 0; j < columns; j += lanes) {
      const int count = columns - j < lanes ? static_cast<int>(columns - j) : lanes;
      const int64_t column = first_column + j;
      Vec v = load(total + j);
      if (args.bias.data != nullptr) v = v + load_matrix(args.bias, 0, column, count);
      if (args.residual.data != nullptr) v = v + load_matrix(args.residual, row, column, count);
      char* out = row_of(args.out, row);
      if (args.out.dtype == DType::bf16) {
        bf16* p = reinterpret_cast<bf16*>(out) + column;
        const VecH bits = to_bf16_bits_exactly(v);
        count == lanes ? void(__builtin_memcpy(p, &bits, sizeof bits)) : store_partial_bits(p, bits, count);
      } else {
        float* p = reinterpret_cast<float*>(out) + column;
        count == lanes ? store(p, v) : store_partial(p, v, count);
      }
    }
  }
}

}  // namespace lathe::kernels::LATHE_ISA
