// Row-major operands as the words of k steps, transposed on the way into panels and tiles. For kernels/matmul's cpu
// sources only.
#pragma once

#include "kernels/matmul/cpu/blocking.h"
#include "kernels/simd/transpose.h"

namespace lathe::kernels::LATHE_ISA {

// Where the words of a row come from. vector(row, step): the words of `lanes` k steps, or of the first `count`, then
// zeros; word(row, step): one, of which an odd k may lack the second half.

// A word is an f32 itself.
struct F32Rows {
  const float* data;
  int64_t stride, k;
  static constexpr int64_t k_per_word = 1;
  LATHE_INLINE VecU vector(int64_t row, int64_t step, int count = lanes) const {
    return load_words(data + row * stride + step, count);
  }
  LATHE_INLINE uint32_t word(int64_t row, int64_t step) const {
    uint32_t word;
    __builtin_memcpy(&word, data + row * stride + step, 4);
    return word;
  }
};

// A word is two neighbours of a bf16 row.
struct Bf16Rows {
  const uint16_t* data;
  int64_t stride, k;
  static constexpr int64_t k_per_word = 2;
  LATHE_INLINE VecU vector(int64_t row, int64_t step, int count = lanes) const {
    return load_words(data + row * stride + 2 * step, count);
  }
  LATHE_INLINE uint32_t word(int64_t row, int64_t step) const {
    const uint16_t* p = data + row * stride + 2 * step;
    return p[0] | (2 * step + 1 < k ? static_cast<uint32_t>(p[1]) << 16 : 0u);
  }
};

// A word is two neighbours of an f32 row, rounded.
struct RoundedRows {
  const float* data;
  int64_t stride, k;
  static constexpr int64_t k_per_word = 2;
  LATHE_INLINE VecU vector(int64_t row, int64_t step, int count = lanes) const {
    const float* p = data + row * stride + 2 * step;
    if (count == lanes) return neighbours_to_pairs(load(p), load(p + lanes));
    const int first = 2 * count < lanes ? 2 * count : lanes;
    return neighbours_to_pairs(load_partial(p, first), load_partial(p + first, 2 * count - first));
  }
  LATHE_INLINE uint32_t word(int64_t row, int64_t step) const {
    const float* p = data + row * stride + 2 * step;
    return neighbours_to_pairs(load_partial(p, 2 * step + 1 < k ? 2 : 1), zero())[0];
  }
};

// A word is two neighbours of an f32 row whose values are bf16 already: the upper halves, subnormals and NaN as well.
struct HalvedRows {
  const float* data;
  int64_t stride, k;  // k is even
  static constexpr int64_t k_per_word = 2;
  LATHE_INLINE VecU vector(int64_t row, int64_t step, int count = lanes) const {
    const float* p = data + row * stride + 2 * step;
    const int first = 2 * count < lanes ? 2 * count : lanes;
    const VecH halves[2] = {narrow(load_words(p, first) >> 16), narrow(load_words(p + first, 2 * count - first) >> 16)};
    return load_words(halves);
  }
  LATHE_INLINE uint32_t word(int64_t row, int64_t step) const {
    uint32_t both[2];
    __builtin_memcpy(both, data + row * stride + 2 * step, sizeof both);
    return both[0] >> 16 | (both[1] & 0xffff0000u);
  }
};

// A word is one bf16 widened to f32. Past an odd k comes one zero, so that there are two words for each word of the
// panel.
struct WidenedRows {
  const bf16* data;
  int64_t stride, k;
  static constexpr int64_t k_per_word = 1;
  LATHE_INLINE VecU vector(int64_t row, int64_t step, int count = lanes) const {
    const bf16* p = data + row * stride + step;
    return count == lanes ? (VecU)load(p) : (VecU)load_partial(p, count);
  }
  LATHE_INLINE uint32_t word(int64_t row, int64_t step) const {
    return step < k ? static_cast<uint32_t>((data + row * stride + step)->bits) << 16 : 0u;
  }
};

// Words [first, first + lanes) of a row of which those before `last` count; zeros after them.
template <class Source>
LATHE_INLINE VecU words_at(const Source& source, int64_t row, int64_t first, int64_t last) {
  const int64_t whole_words = source.k / Source::k_per_word;  // both of whose halves are there
  const int64_t limit = whole_words < last ? whole_words : last;
  if (first + lanes <= limit) return source.vector(row, first);
  VecU v = source.vector(row, first, static_cast<int>(limit - first));
  if (limit < last) v[limit - first] = source.word(row, limit);
  return v;
}

// Words [first, last) of one row, zeros past an odd k's half, whole vectors of them.
template <class Source>
LATHE_INLINE void copy_row(const Source& source, int64_t row, int64_t first, int64_t last, uint32_t* out) {
  const int64_t whole_words = source.k / Source::k_per_word;
  const int64_t limit = whole_words < last ? whole_words : last;
  int64_t step = first;
  for (; step + lanes <= limit; step += lanes) store_words(out + (step - first), source.vector(row, step));
  if (step < limit) store_words(out + (step - first), source.vector(row, step, static_cast<int>(limit - step)));
  if (limit < last) out[limit - first] = source.word(row, limit);
}

// out[step − first][i] = word `step` of row `row + i`, i < rows ≤ lanes, for steps [first, last). Rows of out are
// `width` words apart; whole vectors are stored, so that the words after the last row, up to `lanes`, are overwritten.
template <class Source>
LATHE_INLINE void transpose_rows(const Source& source, int64_t row, int rows, int64_t first, int64_t last,
                                 uint32_t* out, int64_t width) {
  if (rows == 1 && width == 1) return copy_row(source, row, first, last, out);
  const int64_t whole_words = source.k / Source::k_per_word;
  int64_t step = first;
  const int64_t limit = whole_words < last ? whole_words : last;
  for (; step + lanes <= limit; step += lanes) {
    VecU v[lanes];
#pragma GCC unroll 16
    for (int i = 0; i < lanes; ++i) v[i] = i < rows ? source.vector(row + i, step) : VecU{};
    transpose(v);
#pragma GCC unroll 16
    for (int i = 0; i < lanes; ++i) store_words(out + (step - first + i) * width, v[i]);
  }
  if (step == last) return;
  // The rest is transposed, too: word by word, the rank of a LoRA term, which is less than a vector of words, took five
  // times as long.
  VecU v[lanes];
#pragma GCC unroll 16
  for (int i = 0; i < lanes; ++i) v[i] = i < rows ? words_at(source, row + i, step, last) : VecU{};
  transpose(v);
  for (int i = 0; i < last - step; ++i) store_words(out + (step - first + i) * width, v[i]);
}

}  // namespace lathe::kernels::LATHE_ISA
