// Up to 64 rows of d elements, transposed into f32: out[d][64], missing rows as zeros. Included by cpu*.cpp only.
#pragma once

#include "kernels/simd/vec.h"

namespace lathe::kernels::LATHE_ISA {

// The lanes of a and b taken in turn: a0 b0 a1 b1 … of the lower halves, and of the upper halves.
LATHE_INLINE Vec interleave_lower(Vec a, Vec b) {
#if defined(LATHE_AVX512)
  return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
#elif defined(LATHE_AVX2)
  return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
#else
  return __builtin_shufflevector(a, b, 0, 4, 1, 5);
#endif
}
LATHE_INLINE Vec interleave_upper(Vec a, Vec b) {
#if defined(LATHE_AVX512)
  return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
#elif defined(LATHE_AVX2)
  return __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
#else
  return __builtin_shufflevector(a, b, 2, 6, 3, 7);
#endif
}

// A square of lanes × lanes in registers: log2(lanes) perfect shuffles of the rows.
LATHE_INLINE void transpose_square(Vec (&square)[lanes]) {
#pragma GCC unroll 4
  for (int stage = 1; stage < lanes; stage *= 2) {
    Vec next[lanes];
#pragma GCC unroll 8
    for (int i = 0; i < lanes / 2; ++i) {
      next[2 * i] = interleave_lower(square[i], square[i + lanes / 2]);
      next[2 * i + 1] = interleave_upper(square[i], square[i + lanes / 2]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < lanes; ++i) square[i] = next[i];
  }
}

template <class T>
static void transpose_rows(const T* const* rows, int count, int64_t dim, float* out) {
  constexpr int width = 64;
  for (int j = 0; j < count; j += lanes) {
    int64_t d = 0;
    if (j + lanes <= count) {
      for (; d + lanes <= dim; d += lanes) {
        Vec square[lanes];
#pragma GCC unroll 16
        for (int i = 0; i < lanes; ++i) square[i] = load(rows[j + i] + d);
        transpose_square(square);
#pragma GCC unroll 16
        for (int i = 0; i < lanes; ++i) store(out + (d + i) * width + j, square[i]);
      }
    }
    for (; d < dim; d += lanes) {  // the ragged edges
      const int used = dim - d < lanes ? static_cast<int>(dim - d) : lanes;
      Vec square[lanes];
      for (int i = 0; i < lanes; ++i) square[i] = j + i < count ? load_partial(rows[j + i] + d, used) : zero();
      transpose_square(square);
      for (int i = 0; i < used; ++i) store(out + (d + i) * width + j, square[i]);
    }
  }
}

}  // namespace lathe::kernels::LATHE_ISA
