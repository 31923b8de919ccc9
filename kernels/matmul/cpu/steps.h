// What a tile of a product does with one unit along the reduced index. For this folder's sources only.
#pragma once

#include "kernels/matmul/cpu/gemm.h"
#include "kernels/simd/transpose.h"

namespace lathe::kernels::LATHE_ISA {

// A stretch of the reduced index: words of the tile and of the panel.
struct Stretch {
  const uint32_t* left;
  const uint32_t* right;
  int64_t units;
  const uint32_t* ahead = nullptr;  // as many units of the panel that follow, to be asked for early
};

inline constexpr int panel_vectors = gemm::panel_width / lanes;

// Vectors of a panel that are computed side by side: what the registers hold besides the operands, and no more than
// are wanted.
static constexpr int vectors_at_once(int rows, int wanted) {
  const int registers = lanes == 16 ? 28 : 12;
  int vectors = wanted;
  while (vectors > 1 && vectors * rows > registers) vectors /= 2;
  return vectors;
}

LATHE_INLINE Vec broadcast(const uint32_t* word) {
  float value;
  __builtin_memcpy(&value, word, sizeof value);
  return splat(value);
}

// A step: multiply() adds one unit's products to the sums, from left_words words of each row and the panel's words.
template <int rows, int vectors>
struct F32Step {
  static constexpr int left_words = 1;
  static constexpr int chains = gemm::chains(Isa::LATHE_ISA, gemm::Element::f32);
  static LATHE_INLINE void multiply(Vec (&sums)[rows][vectors], const uint32_t* left, const VecU (&b)[vectors]) {
#pragma GCC unroll 16
    for (int i = 0; i < rows; ++i) {
      const Vec a = broadcast(left + i);
#pragma GCC unroll 8
      for (int j = 0; j < vectors; ++j) sums[i][j] = fma(a, (Vec)b[j], sums[i][j]);
    }
  }
};

#if defined(LATHE_ISA_avx512_bf16)
// vdpbf16ps adds the pair's two products to the sum one after the other, and takes subnormals for zero.
template <int rows, int vectors>
struct PairStep {
  static constexpr int left_words = 1;
  static constexpr int chains = gemm::chains(Isa::LATHE_ISA, gemm::Element::bf16);
  static LATHE_INLINE void multiply(Vec (&sums)[rows][vectors], const uint32_t* left, const VecU (&b)[vectors]) {
#pragma GCC unroll 16
    for (int i = 0; i < rows; ++i) {
      const __m512bh a = (__m512bh)_mm512_set1_epi32((int)left[i]);
#pragma GCC unroll 8
      for (int j = 0; j < vectors; ++j) sums[i][j] = (Vec)_mm512_dpbf16_ps((__m512)sums[i][j], a, (__m512bh)b[j]);
    }
  }
};
#else
// The left operand is packed as f32 already: [units][2][rows].
template <int rows, int vectors>
struct PairStep {
  static constexpr int left_words = 2;
  static constexpr int chains = gemm::chains(Isa::LATHE_ISA, gemm::Element::bf16);
  static LATHE_INLINE void multiply(Vec (&sums)[rows][vectors], const uint32_t* left, const VecU (&pairs)[vectors]) {
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      Vec b[vectors];
#pragma GCC unroll 8
      for (int j = 0; j < vectors; ++j) b[j] = half == 0 ? first_of_pairs(pairs[j]) : second_of_pairs(pairs[j]);
#pragma GCC unroll 16
      for (int i = 0; i < rows; ++i) {
        const Vec a = broadcast(left + half * rows + i);
#pragma GCC unroll 8
        for (int j = 0; j < vectors; ++j) sums[i][j] = fma(a, b[j], sums[i][j]);
      }
    }
  }
};
#endif

// The same from the panel's words in memory.
template <class Step, int rows, int vectors>
LATHE_INLINE void multiply_panel(Vec (&sums)[rows][vectors], const uint32_t* left, const uint32_t* right) {
  VecU b[vectors];
#pragma GCC unroll 8
  for (int j = 0; j < vectors; ++j) b[j] = load_words(right + j * lanes);
  Step::multiply(sums, left, b);
}

// Units one after the other.
template <class Step, int rows, int vectors>
LATHE_INLINE void multiply_run(Vec (&sums)[rows][vectors], const uint32_t* left, const uint32_t* right, int64_t units) {
  for (int64_t unit = 0; unit < units; ++unit, left += rows * Step::left_words, right += gemm::panel_width)
    multiply_panel<Step>(sums, left, right);
}

template <int chains, int rows, int vectors>
LATHE_INLINE void clear(Vec (&sums)[chains][rows][vectors]) {
#pragma GCC unroll 4
  for (auto& chain : sums)
#pragma GCC unroll 16
    for (auto& row : chain)
#pragma GCC unroll 8
      for (Vec& sum : row) sum = zero();
}

// Nothing goes to this chain of a slab: neither runs of first nor second, which continues the last chain.
LATHE_INLINE bool is_left_out(int chain, int chains, const Stretch& first, const Stretch& second) {
  return chain > 0 && first.units <= chain * gemm::chain_run && (chain < chains - 1 || second.units == 0);
}

// The first chain of all begins the total: added to zero, it would lose a negative one.
template <int rows, int vectors>
LATHE_INLINE void add_chain(float* accumulators, const Vec (&sums)[rows][vectors], bool begins) {
#pragma GCC unroll 16
  for (int i = 0; i < rows; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < vectors; ++j) {
      float* total = accumulators + i * gemm::panel_width + j * lanes;
      store(total, begins ? sums[i][j] : load(total) + sums[i][j]);
    }
}

}  // namespace lathe::kernels::LATHE_ISA
