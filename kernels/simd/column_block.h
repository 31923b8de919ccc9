// Matrices of f32 that a recurrence changes from token to token, walked row by row in blocks of four vectors of
// columns, which fit into a first-level cache: a sum along the rows is a chain in each lane, and no lane needs another.
// Sums along the columns are made the same way of the transposed matrix. Like vec.h.
#pragma once

#include "kernels/simd/element.h"
#include "kernels/simd/row.h"
#include "kernels/simd/transpose.h"

namespace lathe::kernels::LATHE_ISA::column_block {

constexpr int vectors = 4, width = vectors * lanes;

// One number for each column of a block.
struct Block {
  Vec at[vectors];
};
LATHE_INLINE Block splat_block(float x) {
  Block result;
  for (Vec& v : result.at) v = splat(x);
  return result;
}
LATHE_INLINE Block operator*(Block x, const Block& y) {
  for (int v = 0; v < vectors; ++v) x.at[v] = x.at[v] * y.at[v];
  return x;
}
LATHE_INLINE Block operator+(Block x, const Block& y) {
  for (int v = 0; v < vectors; ++v) x.at[v] = x.at[v] + y.at[v];
  return x;
}
LATHE_INLINE Block fma_block(const Block& x, const Block& y, Block z) {
  for (int v = 0; v < vectors; ++v) z.at[v] = fma(x.at[v], y.at[v], z.at[v]);
  return z;
}

LATHE_INLINE int count_of_vector(int64_t count, int v) {
  const int64_t left = count - v * lanes;
  return left >= lanes ? lanes : left > 0 ? static_cast<int>(left) : 0;
}
// The first `count` elements; the others are 0.
template <class T>
LATHE_INLINE Block load_block(const T* from, int64_t count) {
  Block result;
  for (int v = 0; v < vectors; ++v) {
    const int n = count_of_vector(count, v);
    result.at[v] = n > 0 ? load_some(from + v * lanes, n) : zero();
  }
  return result;
}
template <class T>
LATHE_INLINE void store_block(T* to, const Block& block, int64_t count) {
  for (int v = 0; v < vectors; ++v)
    if (const int n = count_of_vector(count, v); n > 0) store_some(to + v * lanes, block.at[v], n);
}

// A block of a matrix of at most so many rows.
template <int64_t most_rows>
struct alignas(64) MatrixBlock {
  float at[most_rows][width];

  LATHE_INLINE Block row(int64_t i) const { return load_block(at[i], width); }
  LATHE_INLINE void set_row(int64_t i, const Block& block) { store_block(at[i], block, width); }
  void clear(int64_t rows) {
    for (int64_t i = 0; i < rows; ++i) set_row(i, Block{});
  }
  // Columns [column, column + count) of a matrix whose rows are `stride` apart.
  void load(const float* from, int64_t rows, int64_t stride, int64_t column, int64_t count) {
    for (int64_t i = 0; i < rows; ++i) set_row(i, load_block(from + i * stride + column, count));
  }
  void store(float* to, int64_t rows, int64_t stride, int64_t column, int64_t count) const {
    for (int64_t i = 0; i < rows; ++i) store_block(to + i * stride + column, row(i), count);
  }
};

// Σ_i x[i] · row i: the even rows and the odd ones, as one chain of four products a vector would wait for itself.
template <int64_t most_rows>
LATHE_INLINE Block sum_of_rows(const MatrixBlock<most_rows>& state, const float* x, int64_t rows) {
  Block even{}, odd{};
  for (int64_t i = 0; i < rows; i += 2) {
    even = fma_block(splat_block(x[i]), state.row(i), even);
    odd = fma_block(splat_block(x[i + 1]), state.row(i + 1), odd);
  }
  return even + odd;
}

// visit(j, v, x): vector v of row j of the transposed matrix's block, of rows [row, row + count) of the matrix.
template <class Visit>
LATHE_INLINE void for_transposed(const float* matrix, int64_t columns, int64_t row, int64_t count, const Visit& visit) {
  for (int v = 0; v < vectors; ++v) {
    for (int64_t column = 0; column < columns; column += lanes) {
      const int n = columns - column < lanes ? static_cast<int>(columns - column) : lanes;
      VecU square[lanes];
      for (int i = 0; i < lanes; ++i)
        square[i] = v * lanes + i < count ? load_words(matrix + (row + v * lanes + i) * columns + column, n) : VecU{};
      transpose(square);
      for (int j = 0; j < n; ++j) visit(column + j, v, (Vec)square[j]);
    }
  }
}

LATHE_INLINE Vec softplus(Vec x) {
  const Vec e = exp(-abs(x));
  Vec log1p;
  for (int i = 0; i < lanes; ++i) log1p[i] = __builtin_log1pf(e[i]);
  return max(x, zero()) + log1p;
}

// Of a weight that is f32, whatever the rows are, or of their type.
template <class T>
LATHE_INLINE float number_of(const void* from, bool wide, int64_t i) {
  return wide ? static_cast<const float*>(from)[i] : static_cast<float>(static_cast<const T*>(from)[i]);
}

}  // namespace lathe::kernels::LATHE_ISA::column_block
