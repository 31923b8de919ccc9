// The end of a tile: its sums become rows of the result. For kernels/matmul's sources only.
#pragma once

#include "kernels/matmul/cpu/bodies.h"
#include "kernels/matmul/cpu/matrix_rows.h"

namespace lathe::kernels::LATHE_ISA {

// Prefetches what write_tile will touch, before the tile's sums are computed: rows of out lie far apart, and a weight's
// gradient is read and written from memory.
LATHE_INLINE void prefetch_tile(const ProductArgs& product, int64_t first_row, int64_t rows, int64_t first_column) {
  const ProductMatrix& matrix = product.residual.data != nullptr ? product.residual : product.out;
  const int64_t element = element_bytes(matrix), bytes = gemm::panel_width * element;
  for (int64_t i = 0; i < rows; ++i) {
    const char* row = row_of(matrix, first_row + i) + first_column * element;
    for (int64_t offset = 0; offset < bytes; offset += 64) __builtin_prefetch(row + offset, 1);
  }
}

// The same for the sums of the k blocks before.
LATHE_INLINE void prefetch_sums(const float* accumulators, int64_t rows) {
  for (int64_t i = 0; i < rows * gemm::panel_width; i += 16) __builtin_prefetch(accumulators + i, 1);
}

// out = scale · sums + bias + residual, in that order, rounded once.
inline void write_tile(const ProductArgs& product, const float* accumulators, int64_t first_row, int64_t rows,
                       int64_t first_column) {
  const int64_t columns = product.n - first_column < gemm::panel_width ? product.n - first_column : gemm::panel_width;
  const Vec scale = splat(product.scale);
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < columns; j += lanes) {
      const int count = columns - j < lanes ? static_cast<int>(columns - j) : lanes;
      const int64_t column = first_column + j;
      Vec v = load(accumulators + i * gemm::panel_width + j) * scale;
      if (product.bias.data != nullptr) v = v + load_matrix(product.bias, 0, column, count);
      if (product.residual.data != nullptr) v = v + load_matrix(product.residual, first_row + i, column, count);
      store_matrix(product.out, first_row + i, column, v, count);
    }
  }
}

}  // namespace lathe::kernels::LATHE_ISA
