// Up to 64 rows of dim elements, transposed into f32: out[d][64]. Included by cpu*.cpp only.
#pragma once

#include "kernels/simd/vec.h"

namespace lathe::kernels::LATHE_ISA {

// Within each quarter of four lanes: the lanes of a and b taken in turn, of the quarter's lower half or its upper.
LATHE_INLINE Vec interleave_lower(Vec a, Vec b) {
#if defined(LATHE_AVX512)
  return __builtin_shufflevector(a, b, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29);
#elif defined(LATHE_AVX2)
  return __builtin_shufflevector(a, b, 0, 8, 1, 9, 4, 12, 5, 13);
#else
  return __builtin_shufflevector(a, b, 0, 4, 1, 5);
#endif
}
LATHE_INLINE Vec interleave_upper(Vec a, Vec b) {
#if defined(LATHE_AVX512)
  return __builtin_shufflevector(a, b, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31);
#elif defined(LATHE_AVX2)
  return __builtin_shufflevector(a, b, 2, 10, 3, 11, 6, 14, 7, 15);
#else
  return __builtin_shufflevector(a, b, 2, 6, 3, 7);
#endif
}

// Four lanes from each of rows 0, 4, 8 …, one quarter of the vector from each: the loads do half of the transposition,
// which leaves 2 shuffles a row to the one port that has them. (All in registers it was 4 and a third slower.)
LATHE_INLINE Vec gather_quarters(const void* const* rows, int64_t byte) {
  const auto four = [byte](const void* row) {
    return _mm_loadu_ps(reinterpret_cast<const float*>(static_cast<const char*>(row) + byte));
  };
#if defined(LATHE_AVX512)
  __m512 v = _mm512_castps128_ps512(four(rows[0]));
  v = _mm512_mask_broadcast_f32x4(v, 0x00f0, four(rows[4]));
  v = _mm512_mask_broadcast_f32x4(v, 0x0f00, four(rows[8]));
  return (Vec)_mm512_mask_broadcast_f32x4(v, 0xf000, four(rows[12]));
#elif defined(LATHE_AVX2)
  return (Vec)_mm256_insertf128_ps(_mm256_castps128_ps256(four(rows[0])), four(rows[4]), 1);
#else
  return (Vec)four(rows[0]);
#endif
}

// 16 bytes of each of `lanes` rows, from byte on: out[i] holds their i-th four bytes.
LATHE_INLINE void transpose_words(const void* const* rows, int64_t byte, Vec (&out)[4]) {
  const Vec a = gather_quarters(rows, byte), b = gather_quarters(rows + 1, byte), c = gather_quarters(rows + 2, byte),
            d = gather_quarters(rows + 3, byte);
  const Vec ac_lower = interleave_lower(a, c), bd_lower = interleave_lower(b, d);
  const Vec ac_upper = interleave_upper(a, c), bd_upper = interleave_upper(b, d);
  out[0] = interleave_lower(ac_lower, bd_lower);
  out[1] = interleave_upper(ac_lower, bd_lower);
  out[2] = interleave_lower(ac_upper, bd_upper);
  out[3] = interleave_upper(ac_upper, bd_upper);
}

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
    store(out + (d + 2 * i) * transposed_row, (Vec)((VecU)pairs[i] << 16));
    store(out + (d + 2 * i + 1) * transposed_row, (Vec)((VecU)pairs[i] & 0xffff0000u));
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
