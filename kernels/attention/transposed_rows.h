// Up to 64 rows of dim elements, transposed into f32: out[d][64]. Included by cpu*.cpp only.
#pragma once

#include "kernels/simd/transpose.h"

namespace lathe::kernels::LATHE_ISA {

inline constexpr int64_t transposed_row = 64;

// The elements d … of `lanes` rows that 16 bytes hold: 4 of f32, and 8 of bf16, whose pairs are split after they moved.
LATHE_INLINE int64_t transpose_step(const void* const* rows, int64_t d, float* out, float) {
  Vec columns[4];
  transpose_words(rows, d * 4, columns);
  for (int i = 0; i < 4; ++i) store(out + (d + i) * transposed_row, columns[i]);
  return 4;
}
LATHE_INLINE int64_t transpose_step(const void* const* rows, int64_t d, float* out, bf16) {
  Vec pairs[4];
  transpose_words(rows, d * 2, pairs);
  for (int i = 0; i < 4; ++i) {
    store(out + (d + 2 * i) * transposed_row, first_of_pairs((VecU)pairs[i]));
    store(out + (d + 2 * i + 1) * transposed_row, second_of_pairs((VecU)pairs[i]));
  }
  return 8;
}

LATHE_INLINE int64_t transpose_step(const void* const* rows, int64_t d, float* out, f16) {
  Vec pairs[4];
  transpose_words(rows, d * 2, pairs);
  for (int i = 0; i < 4; ++i) {
    const VecU words = (VecU)pairs[i];
    store(out + (d + 2 * i) * transposed_row, from_f16_bits(narrow(words & 0xffffu)));
    store(out + (d + 2 * i + 1) * transposed_row, from_f16_bits(narrow(words >> 16)));
  }
  return 8;
}

LATHE_INLINE int64_t transpose_step(const void* const* rows, int64_t d, float* out, int8_t) {
  Vec fours[4];
  transpose_words(rows, d, fours);
  for (int i = 0; i < 4; ++i) {
    for (int j = 0; j < 4; ++j) {
      const VecI whole = (VecI)((VecU)fours[i] << (24 - 8 * j)) >> 24;
      store(out + (d + 4 * i + j) * transposed_row, __builtin_convertvector(whole, Vec));
    }
  }
  return 16;
}

// Rows that are wanted soon, asked for a few at a time: `bytes` of each; none when bytes is 0.
struct Prefetch {
  const void* const* rows = nullptr;  // [64]
  int64_t bytes = 0;
};

LATHE_INLINE void prefetch_rows(const Prefetch& wanted, int64_t begin, int64_t end) {
  if (wanted.bytes == 0) return;
  for (int64_t j = begin; j < end && j < transposed_row; ++j) {
    for (int64_t byte = 0; byte < wanted.bytes; byte += 64)
      __builtin_prefetch(static_cast<const char*>(wanted.rows[j]) + byte, 0, 2);
  }
}

// Room in `rows` is 64; entries past count, up to a whole vector, are set to the last row: whoever reads them masks.
template <class T>
static void transpose_rows(const void** rows, int64_t count, int64_t dim, float* out, const Prefetch& wanted = {}) {
  constexpr int64_t step = 16 / sizeof(T);
  const int64_t rows_at_once = (lanes * step + dim - 1) / dim;  // spread over the steps of a vector of keys
  for (int64_t j = count; j % lanes != 0; ++j) rows[j] = rows[count - 1];
  for (int64_t j = 0; j < count; j += lanes) {
    int64_t d = 0, asked = j;
    while (d + step <= dim) {
      prefetch_rows(wanted, asked, asked + rows_at_once);
      asked += rows_at_once;
      d += transpose_step(rows + j, d, out + j, T{});
    }
    for (; d < dim; ++d) {
      for (int i = 0; i < lanes; ++i)
        out[d * transposed_row + j + i] = load_partial(static_cast<const T*>(rows[j + i]) + d, 1)[0];
    }
  }
}

}  // namespace lathe::kernels::LATHE_ISA
