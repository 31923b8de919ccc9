// What a tile of a product does in one k step. For kernels/matmul's cpu sources only.
#pragma once

#include "kernels/matmul/cpu/blocking.h"
#include "kernels/simd/transpose.h"

namespace lathe::kernels::LATHE_ISA {

// Words of a tile and of a panel over some k steps.
struct KRange {
  const uint32_t* left = nullptr;
  const uint32_t* right = nullptr;
  int64_t steps = 0;
  const uint32_t* prefetch = nullptr;  // as many k steps of the panel that follow
};

// The second pair of a tile, for all of its rows, or where they have different ones for each of them.
struct SecondRange {
  KRange all = {};                  // its steps are the most of any row
  const KRange* of_rows = nullptr;  // [rows]
};

inline constexpr int panel_vectors = gemm::panel_width / lanes;

// Vectors of a panel that are computed side by side: as many as the registers hold besides the operands, and at most
// `wanted`.
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

// multiply() adds one k step's products to the sums, from left_words words of each row and the panel's words.
template <int rows, int vectors>
struct F32Step {
  using Second = F32Step;
  using OneRow = F32Step<1, vectors>;
  static constexpr int left_words = 1;
  static constexpr int chains = gemm::chains(Isa::LATHE_ISA, DType::f32);
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
  using Second = PairStep;
  using OneRow = PairStep<1, vectors>;
  static constexpr int left_words = 1;
  static constexpr int chains = gemm::chains(Isa::LATHE_ISA, DType::bf16);
  static LATHE_INLINE void multiply(Vec (&sums)[rows][vectors], const uint32_t* left, const VecU (&b)[vectors]) {
#pragma GCC unroll 16
    for (int i = 0; i < rows; ++i) {
      const __m512bh a = (__m512bh)_mm512_set1_epi32((int)left[i]);
#pragma GCC unroll 8
      for (int j = 0; j < vectors; ++j) sums[i][j] = (Vec)_mm512_dpbf16_ps((__m512)sums[i][j], a, (__m512bh)b[j]);
    }
  }
};
#endif

// Pairs of the right operand are widened: the two k steps of f32 that they stand for. The left operand is f32: [k
// steps][2][rows].
template <int rows, int vectors>
struct WidenedStep {
  using Second = F32Step<rows, vectors>;
  using OneRow = F32Step<1, vectors>;
  static constexpr int left_words = 2;
  static constexpr int chains = gemm::chains(Isa::LATHE_ISA, DType::f32);
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

#if !defined(LATHE_ISA_avx512_bf16)
// Both operands of a product of bf16, of which the left one is packed as f32 already.
template <int rows, int vectors>
struct PairStep : WidenedStep<rows, vectors> {
  using Second = PairStep;
  using OneRow = PairStep<1, vectors>;
  static constexpr int chains = gemm::chains(Isa::LATHE_ISA, DType::bf16);
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

// k steps one after the other.
template <class Step, int rows, int vectors>
LATHE_INLINE void multiply_steps(Vec (&sums)[rows][vectors], const uint32_t* left, const uint32_t* right,
                                 int64_t steps) {
  for (int64_t step = 0; step < steps; ++step, left += rows * Step::left_words, right += gemm::panel_width)
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

// Nothing goes to this chain of a k block: no k steps of the first operands, nor of the second, which continue the last
// chain.
LATHE_INLINE bool is_left_out(int chain, int chains, int64_t first_steps, const SecondRange& second) {
  return chain > 0 && first_steps <= chain * gemm::chain_steps && (chain < chains - 1 || second.all.steps == 0);
}

// Continues the last chain with the second pair. The chain of a row that gets nothing, while others do, becomes the
// negative zeros that change no total.
template <class Step, int rows, int vectors>
LATHE_INLINE void multiply_second(Vec (&sums)[rows][vectors], int64_t first_steps, const SecondRange& second,
                                  int64_t column) {
  if (second.of_rows == nullptr)
    return multiply_steps<typename Step::Second>(sums, second.all.left, second.all.right + column, second.all.steps);
  const bool empty = Step::chains > 1 && first_steps <= (Step::chains - 1) * gemm::chain_steps;
#pragma GCC unroll 16
  for (int i = 0; i < rows; ++i) {
    const KRange& own = second.of_rows[i];
    Vec row[1][vectors];
#pragma GCC unroll 8
    for (int j = 0; j < vectors; ++j) row[0][j] = empty && own.steps == 0 ? splat(-0.0f) : sums[i][j];
    multiply_steps<typename Step::OneRow>(row, own.left, own.right + column, own.steps);
#pragma GCC unroll 8
    for (int j = 0; j < vectors; ++j) sums[i][j] = row[0][j];
  }
}

// Adds a chain to a tile's totals. The first chain of all is the total: added to zero, it would lose a negative zero.
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
