// What decoders of block formats share: codes of 16 rows, half a panel, become words of a panel for two neighbours
// along k at a time. For kernels/matmul's cpu sources only.
//
// A format's decoder has
//   Chunk        what is loaded of the codes of 16 rows and decode_chunk neighbours along k
//   load_chunk   of a group's codes: `chunk` counts from the group's beginning, `half` is that of the panel
//   decode       two neighbours of the 16 rows: pair `pair` of the chunk's segment `segment`
//   prefetches   whether codes are prefetched for few rows
#pragma once

#include "kernels/matmul/cpu/blocking.h"
#include "kernels/simd/transpose.h"

namespace lathe::kernels::LATHE_ISA {

inline constexpr int half_rows = 16;
inline constexpr int half_vectors = half_rows / lanes;
// A chunk has a segment of eight neighbours for each of four chains.
inline constexpr int segments = 4;
inline constexpr int segment_pairs = 4;
static_assert(segments * segment_pairs * 2 == gemm::decode_chunk);

// The words of one k step (bf16: a pair of neighbours) or of two (f32).
template <DType dtype>
struct DecodedWords {
  static constexpr int count = dtype == DType::bf16 ? 1 : 2;
  VecU steps[count][half_vectors];
};

// Scales of 16 rows, in the order in which their values are made.
template <DType dtype>
struct RowScales {
  Vec rows[half_vectors];
  RowScales() = default;
  LATHE_INLINE explicit RowScales(const float* scales) {
#pragma GCC unroll 4
    for (int j = 0; j < half_vectors; ++j) rows[j] = load(scales + j * lanes);
  }
};

#if defined(LATHE_ISA_avx512_bf16)
// vcvtne2ps_pbh converts two vectors one after the other: the two neighbours of a row must be side by side in them.
template <>
struct RowScales<DType::bf16> {
  Vec low, high;  // of rows 0, 0, 1, 1, …, and of rows 8, 8, 9, 9, …
  RowScales() = default;
  LATHE_INLINE explicit RowScales(const float* scales) {
    const VecU v = load_words(scales);
    low = (Vec)__builtin_shufflevector(v, v, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
    high = (Vec)__builtin_shufflevector(v, v, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13, 14, 14, 15, 15);
  }
};
#endif

// f32 to bf16 in the upper half of each word, to nearest even; weights are finite.
LATHE_INLINE VecU rounded_words(Vec v) { return (VecU)v + 0x7fffu + (((VecU)v >> 16) & 1u); }
LATHE_INLINE VecU pair_of(Vec first, Vec second) {
  return (rounded_words(first) >> 16) | (rounded_words(second) & 0xffff0000u);
}

// The values of two neighbours into vector `vector` of the words.
template <DType dtype>
LATHE_INLINE void put(DecodedWords<dtype>& words, int vector, Vec first, Vec second) {
  if constexpr (dtype == DType::bf16) {
    words.steps[0][vector] = pair_of(first, second);
  } else {
    words.steps[0][vector] = (VecU)first, words.steps[1][vector] = (VecU)second;
  }
}

}  // namespace lathe::kernels::LATHE_ISA
