// Walks and sums along a row of any length. Like vec.h, for cpu*.cpp only.
#pragma once

#include "kernels/arguments/matrix.h"
#include "kernels/simd/vec.h"

namespace lathe::kernels::LATHE_ISA {

template <class T>
LATHE_INLINE T* row_of(const Matrix& matrix, int64_t row) {
  return static_cast<T*>(matrix.data) + row * matrix.stride;
}
template <class T>
LATHE_INLINE const T* row_of(const ConstMatrix& matrix, int64_t row) {
  return static_cast<const T*>(matrix.data) + row * matrix.stride;
}

template <class T>
LATHE_INLINE Vec load_some(const T* p, int count) {
  return count == lanes ? load(p) : load_partial(p, count);
}
template <class T>
LATHE_INLINE void store_some(T* p, Vec v, int count) {
  count == lanes ? store(p, v) : store_partial(p, v, count);
}

// body(i, count) for consecutive pieces of `lanes` elements; the last may be shorter.
template <class Body>
LATHE_INLINE void for_row(int64_t n, Body body) {
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) body(i, lanes);
  if (i < n) body(i, static_cast<int>(n - i));
}

// The order of every sum along a row: element i joins partial sum i mod 32, and the partial sums are folded halves
// onto each other. It depends on n alone, and is the same in every instruction set.
inline constexpr int row_partials = 32;

// term(partial, i, count) returns the partial sums of one piece with elements [i, i + count) joined.
template <class Term>
LATHE_INLINE float row_sum(int64_t n, Term term) {
  constexpr int parts = row_partials / lanes;
  Vec part[parts] = {};
  int64_t i = 0;
  for (; i + row_partials <= n; i += row_partials) {
    for (int p = 0; p < parts; ++p) part[p] = term(part[p], i + p * lanes, lanes);
  }
  for (int p = 0; p < parts; ++p) {
    const int64_t left = n - i - p * lanes;
    if (left > 0) part[p] = term(part[p], i + p * lanes, left < lanes ? static_cast<int>(left) : lanes);
  }
  for (int width = parts / 2; width > 0; width /= 2) {
    for (int p = 0; p < width; ++p) part[p] = part[p] + part[p + width];
  }
  return sum_lanes(part[0]);
}

}  // namespace lathe::kernels::LATHE_ISA
