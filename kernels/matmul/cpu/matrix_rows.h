// Rows of a product's f32 or bf16 matrices as vectors of f32. For kernels/matmul's cpu sources only.
#pragma once

#include "kernels/matmul/arguments.h"
#include "kernels/simd/vec.h"

namespace lathe::kernels::LATHE_ISA {

template <class T>
LATHE_INLINE Vec load_columns(const void* row, int64_t column, int count) {
  const T* p = static_cast<const T*>(row) + column;
  return count == lanes ? load(p) : load_partial(p, count);
}

LATHE_INLINE int64_t element_bytes(const ProductMatrix& matrix) { return matrix.dtype == DType::bf16 ? 2 : 4; }
LATHE_INLINE char* row_of(const ProductMatrix& matrix, int64_t row) {
  return static_cast<char*>(matrix.data) + row * matrix.stride * element_bytes(matrix);
}
LATHE_INLINE Vec load_matrix(const ProductMatrix& matrix, int64_t row, int64_t column, int count) {
  const char* p = row_of(matrix, row);
  return matrix.dtype == DType::bf16 ? load_columns<bf16>(p, column, count) : load_columns<float>(p, column, count);
}

template <class T>
LATHE_INLINE void store_columns(void* row, int64_t column, Vec v, int count) {
  T* p = static_cast<T*>(row) + column;
  if (count == lanes) {
    store(p, v);
  } else {
    store_partial(p, v, count);
  }
}
LATHE_INLINE void store_matrix(const ProductMatrix& matrix, int64_t row, int64_t column, Vec v, int count) {
  char* p = row_of(matrix, row);
  matrix.dtype == DType::bf16 ? store_columns<bf16>(p, column, v, count) : store_columns<float>(p, column, v, count);
}

}  // namespace lathe::kernels::LATHE_ISA
