// Up to 64 rows of dim elements, transposed into f32: out[d][64]; whole numbers of i8 times i8_column_unit. Included by this folder's sources only.
#pragma once

#include "kernels/attention/cpu/prefetch.h"
#include "kernels/simd/transpose.h"

namespace lathe::kernels::LATHE_ISA {

inline constexpr int64_t transposed_row = 64;

// transpose_words() turns strips of 16 bytes of `lanes` rows into four vectors of words; a word holds so many elements of its row …
template <class T>
inline constexpr int word_columns = 4 / static_cast<int>(sizeof(T));
template <class T>
inline constexpr int strip_columns = 4 * word_columns<T>;

// … that are taken out one by one after they moved.
LATHE_INLINE Vec column_of(Vec word, int, float) { return word; }
LATHE_INLINE Vec column_of(Vec word, int c, bf16) {
  return c == 0 ? first_of_pairs((VecU)word) : second_of_pairs((VecU)word);
}
LATHE_INLINE Vec column_of(Vec word, int c, f16) {
#if defined(LATHE_AVX512)
  static constexpr uint16_t firsts_then_seconds[32] = {0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30,
                                                       1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31};
  const __m512i parted = _mm512_permutexvar_epi16((__m512i)load_words(firsts_then_seconds), (__m512i)word);
  return (Vec)_mm512_cvtph_ps(c == 0 ? _mm512_castsi512_si256(parted) : _mm512_extracti64x4_epi64(parted, 1));
#else
  return from_f16_bits(narrow(c == 0 ? (VecU)word & 0xffffu : (VecU)word >> 16));
#endif
}
// A whole number stays in the word's upper byte, which saves half of the shifts: the column is 2^24 times too large.
inline constexpr float i8_column_unit = 0x1p24f;
LATHE_INLINE Vec column_of(Vec word, int c, int8_t) {
  return __builtin_convertvector((VecI)(((VecU)word << (24 - 8 * c)) & 0xff000000u), Vec);
}
// One element of each of `lanes` rows, for what a row has past its last strip.
template <class T>
LATHE_INLINE Vec load_column(const void* const* rows, int64_t d) {
  Vec column;
  for (int i = 0; i < lanes; ++i) column[i] = load_partial(static_cast<const T*>(rows[i]) + d, 1)[0];
  return sizeof(T) == 1 ? column * splat(i8_column_unit) : column;
}

// Entries past count, up to a whole vector, become the last row: whoever reads them masks.
LATHE_INLINE void repeat_last_row(const void** rows, int64_t count) {
  for (int64_t j = count; j % lanes != 0; ++j) rows[j] = rows[count - 1];
}

// `rows`: whole vectors of them.
template <class T, class A>
static void transpose_rows(const void* const* rows, int64_t count, int64_t dim, float* out, A& ahead) {
  for (int64_t j = 0; j < count; j += lanes) {
    int64_t d = 0;
    for (; d + strip_columns<T> <= dim; d += strip_columns<T>) {
      ahead.ask();
      Vec words[4];
      transpose_words(rows + j, d * static_cast<int64_t>(sizeof(T)), words);
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
#pragma GCC unroll 4
        for (int c = 0; c < word_columns<T>; ++c)
          store(out + (d + i * word_columns<T> + c) * transposed_row + j, column_of(words[i], c, T{}));
      }
    }
    for (; d < dim; ++d) store(out + d * transposed_row + j, load_column<T>(rows + j, d));
  }
}

}  // namespace lathe::kernels::LATHE_ISA
