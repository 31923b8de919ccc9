// Rows copied into scratch as products read them: padded, in pairs of bf16, or transposed.
#pragma once

#include "kernels/attention/cpu/products.h"
#include "kernels/simd/transpose.h"

namespace lathe::kernels::LATHE_ISA {

template <class T>
LATHE_INLINE T* row_of(const HeadRows& x, int64_t token, int64_t head) {
  return static_cast<T*>(x.data) + token * x.token + head * x.head;
}

// ---- padded, or in pairs ----

// out[j][d] = element d of row j, zeros up to padded_dim.
template <class T>
static inline void pad_rows(const void* const* rows, int64_t count, int64_t dim, int64_t padded_dim, float* out) {
  for (int64_t j = 0; j < count; ++j, out += padded_dim)
    load_padded(static_cast<const T*>(rows[j]), dim, padded_dim, out);
}

// out[j][d] = elements d of rows 2j and 2j + 1, a pair of bf16; what is missing is 0.
template <class Dot>
static inline void pair_rows(const void* const* rows, int64_t count, int64_t dim, int64_t padded_dim, float* out) {
  const auto pairs = Dot::paired_rows(rows);
  const int64_t whole = dim / lanes * lanes, whole_rows = count / 2;
  for (int64_t j = 0; j < whole_rows; ++j)
    for (int64_t d = 0; d < whole; d += lanes) store(out + j * padded_dim + d, pairs.at(j, d));
  const auto partial = [&](int64_t row, int64_t d) -> VecH {
    const int left = static_cast<int>(least(lanes, dim - d));
    return row < count ? load_partial_bits(static_cast<const bf16*>(rows[row]) + d, left) : VecH{};
  };
  if (whole < padded_dim)
    for (int64_t j = 0; j < whole_rows; ++j)
      store_words(out + j * padded_dim + whole, make_pairs(partial(2 * j, whole), partial(2 * j + 1, whole)));
  if (count % 2 == 1)
    for (int64_t d = 0; d < padded_dim; d += lanes)
      store_words(out + whole_rows * padded_dim + d, make_pairs(partial(count - 1, d), VecH{}));
}

// A chunk's rows for products along them, as P·V: their elements side by side, or with Bf16Dot those of two rows.
template <class T, class Dot>
LATHE_INLINE void load_values(const void* const* rows, int64_t count, int64_t dim, int64_t padded_dim, float* out) {
  if constexpr (Dot::width == 2) {
    pair_rows<Dot>(rows, count, dim, padded_dim, out);
  } else {
    pad_rows<T>(rows, count, dim, padded_dim, out);
  }
}

// A chunk's rows for products along d, as q·k: floats from one row to the next …
template <class Dot>
LATHE_INLINE int64_t key_row(int64_t head_dim) {
  return padded_head_dim(head_dim / Dot::width);
}
// … and the rows.
template <class T, class Dot>
LATHE_INLINE void load_keys(const void* const* rows, int64_t count, int64_t head_dim, float* out) {
  pad_rows<typename Dot::template KeyWord<T>>(rows, count, head_dim / Dot::width, key_row<Dot>(head_dim), out);
}

// ---- transposed ----

inline constexpr int64_t transposed_row = 64;  // floats from one transposed row to the next

// transpose_words() makes four vectors of words of a strip: 16 bytes of each of `lanes` rows. A word holds several
// elements of its row …
template <class T>
inline constexpr int word_columns = 4 / static_cast<int>(sizeof(T));
template <class T>
inline constexpr int strip_columns = 4 * word_columns<T>;

// … which are widened one column at a time after the transposition.
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
// An i8 element stays in the word's upper byte, which saves half of the shifts: the column is 2^24 times too large.
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

// Entries past count, up to a whole vector, become the last row; scores with them are masked.
LATHE_INLINE void repeat_last_row(const void** rows, int64_t count) {
  for (int64_t j = count; j % lanes != 0; ++j) rows[j] = rows[count - 1];
}

// Up to 64 rows of dim elements as f32: out[d][64], i8 elements times i8_column_unit. `rows` is filled to a whole
// vector.
template <class T>
static void transpose_rows(const void* const* rows, int64_t count, int64_t dim, float* out) {
  for (int64_t j = 0; j < count; j += lanes) {
    int64_t d = 0;
    for (; d + strip_columns<T> <= dim; d += strip_columns<T>) {
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

// Rows for products along d with rows in the lanes: out[d][64], with Bf16Dot out[d / 2][64] of pairs.
template <class T, class Dot>
LATHE_INLINE void load_transposed(const void** rows, int64_t count, int64_t head_dim, float* out) {
  repeat_last_row(rows, count);
  transpose_rows<typename Dot::template KeyWord<T>>(rows, count, head_dim / Dot::width, out);
}

}  // namespace lathe::kernels::LATHE_ISA
