// Row-major operands as the words of k steps, transposed on the way into panels and tiles. For kernels/matmul's cpu
// sources only.
#pragma once

#include "kernels/matmul/cpu/blocking.h"
#include "kernels/simd/transpose.h"

namespace lathe::kernels::LATHE_ISA {

// Where the words of a row come from. vector(row, step): the words of `lanes` k steps; word(row, step): one, of which
// an odd k may lack the second half.

// A word is an f32 itself.
struct F32Rows {
  const float* data;
  int64_t stride, k;
  static constexpr int64_t k_per_word = 1;
  LATHE_INLINE VecU vector(int64_t row, int64_t step) const { return load_words(data + row * stride + step); }
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
  LATHE_INLINE VecU vector(int64_t row, int64_t step) const { return load_words(data + row * stride + 2 * step); }
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
  LATHE_INLINE VecU vector(int64_t row, int64_t step) const {
    const float* p = data + row * stride + 2 * step;
    return neighbours_to_pairs(load(p), load(p + lanes));
  }
  LATHE_INLINE uint32_t word(int64_t row, int64_t step) const {
    const float* p = data + row * stride + 2 * step;
    return neighbours_to_pairs(load_partial(p, 2 * step + 1 < k ? 2 : 1), zero())[0];
  }
};

// A word is one bf16 widened to f32. Past an odd k comes one zero, so that there are two words for each word of the
// panel.
struct WidenedRows {
  const bf16* data;
  int64_t stride, k;
  static constexpr int64_t k_per_word = 1;
  LATHE_INLINE VecU vector(int64_t row, int64_t step) const { return (VecU)load(data + row * stride + step); }
  LATHE_INLINE uint32_t word(int64_t row, int64_t step) const {
    return step < k ? static_cast<uint32_t>((data + row * stride + step)->bits) << 16 : 0u;
  }
};

// out[step − first][i] = word `step` of row `row + i`, i < rows ≤ lanes, for steps [first, last). Rows of out are
// `width` words apart; whole vectors are stored, so that the words after the last row, up to `lanes`, are overwritten.
template <class Source>
LATHE_INLINE void transpose_rows(const Source& source, int64_t row, int rows, int64_t first, int64_t last,
                                 uint32_t* out, int64_t width) {
  const int64_t whole_words = source.k / Source::k_per_word;  // both of whose halves are there
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
  for (; step < last; ++step) {
    VecU v{};
    for (int i = 0; i < rows; ++i) v[i] = source.word(row + i, step);
    store_words(out + (step - first) * width, v);
  }
}

}  // namespace lathe::kernels::LATHE_ISA
