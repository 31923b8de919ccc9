// From products q·k to the weights of an online softmax, and how chunks of keys are merged: what forward, backward and
// decode share. Sums of a warp lie as mma.sync leaves them (kernels/cuda/tile/fragment.cuh).
#pragma once

#include "kernels/attention/params.h"
#include "kernels/cuda/tile/fragment.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE::flash {

inline constexpr int chunk = static_cast<int>(attention_chunk);
inline constexpr float nothing = -__builtin_inff();
inline constexpr float log2_e = 1.44269504088896341f;

// ---- scores ----

// How products become scores in log2 units: product · factor, or cap · tanh(product · factor).
struct ScoreRule {
  float factor, cap;
  float unit;  // cap, or factor: what cap_products()' result is multiplied by, where exp2 has its maximum subtracted
  int window;
};
inline ScoreRule score_rule(const AttentionParams& params) {
  const int window = params.window < INT32_MAX ? static_cast<int>(params.window) : 0;
  const float cap = params.softcap * log2_e, factor = params.scale * log2_e;
  return params.softcap > 0 ? ScoreRule{params.scale / params.softcap, cap, cap, window}
                            : ScoreRule{factor, 0.0f, factor, window};
}

// tanh is within 2^-22 of 1 for 16-bit queries, whose scores have no more; f32 takes the library's, which is slower by
// half.
template <class T>
__device__ __forceinline__ float tanh_of(float x) {
  if constexpr (sizeof(T) == 2) return 1.0f - __fdividef(2.0f, 1.0f + exp2_fast(x * 2.88539008177792681f));
  return tanhf(x);
}

template <class T, int rows, int columns>
__device__ __forceinline__ void cap_products(Accumulator<rows, columns>& s, const ScoreRule& rule) {
  if (rule.cap > 0) for_each(s, [&](int, int, int, float& product) { product = tanh_of<T>(product * rule.factor); });
}

// ---- who sees whom ----

// Which keys a query at `position` sees; whether some query of a span sees some key of another; whether all see all.
__device__ __forceinline__ bool sees(int position, int key, int window) {
  return key <= position && (window == 0 || key > position - window);
}
struct Span {
  int first, last;  // first > last: empty
};
__device__ __forceinline__ bool some_seen(Span queries, Span keys, int window) {
  return queries.first <= queries.last && keys.first <= keys.last && keys.first <= queries.last &&
         (window == 0 || keys.last > queries.first - window);
}
__device__ __forceinline__ bool all_seen(Span queries, Span keys, int window) {
  return keys.last <= queries.first && (window == 0 || keys.first > queries.last - window);
}
__device__ __forceinline__ Span chunk_keys(int chunk_index) {
  return {chunk_index * chunk, chunk_index * chunk + chunk - 1};
}

// Where a warp's rows stand among the keys: row r of the sequence's queries × group at first_position + r / group.
struct WarpRows {
  int first_position, group;
  int first_row;   // of the warp
  Span positions;  // of its rows that exist

  // Of the lane's row 16 i + 8 h + lane / 4. Computed when a mask needs it: kept, it cost the registers that spilled.
  __device__ __forceinline__ int position(int i, int h) const {
    return first_position + (first_row + i * 16 + h * 8 + static_cast<int>(threadIdx.x) % 32 / 4) / group;
  }
};

// ---- softmax of a chunk ----

// Products q·k → scores / unit, −∞ where unseen, and each row's highest score.
template <class T, int rows>
__device__ __forceinline__ void chunk_scores(Accumulator<rows, chunk>& s, RowValues<rows>& maximum,
                                             const WarpRows& warp, int chunk_index, const ScoreRule& rule) {
  cap_products<T>(s, rule);
  if (!all_seen(warp.positions, chunk_keys(chunk_index), rule.window)) {
    const int first_key = chunk_index * chunk + static_cast<int>(threadIdx.x) % 4 * 2;
    RowValues<rows, int> position;
    for_each_row(position, [&](int i, int h, int& at) { at = warp.position(i, h); });
    for_each(s, [&](int i, int j, int e, float& score) {
      if (!sees(position.at[i][e / 2], first_key + j * 8 + e % 2, rule.window)) score = nothing;
    });
  }
  for_each_row(maximum, [](int, int, float& row) { row = nothing; });
  for_each(s, [&](int i, int, int e, float score) { maximum.at[i][e / 2] = fmaxf(maximum.at[i][e / 2], score); });
  const float unit = rule.unit;
  for_each_row(maximum, [&](int, int, float& row) {
    row = fmaxf(row, __shfl_xor_sync(full_warp, row, 1));
    row = fmaxf(row, __shfl_xor_sync(full_warp, row, 2)) * unit;
  });
}

// What is taken from scores below a maximum of −∞: −∞ − 0 and not −∞ − (−∞).
__device__ __forceinline__ float finite_maximum(float maximum) { return maximum == nothing ? 0.0f : maximum; }

// Scores / unit → 2^(score − maximum), 0 where unseen, and each row's sum.
template <int rows>
__device__ __forceinline__ void chunk_weights(Accumulator<rows, chunk>& s, const RowValues<rows>& maximum,
                                              RowValues<rows>& sum, float unit) {
  RowValues<rows> above;
  for_each_row(above, [&](int i, int h, float& row) {
    row = finite_maximum(maximum.at[i][h]);
    sum.at[i][h] = 0.0f;
  });
  for_each(s, [&](int i, int, int e, float& score) {
    score = exp2_fast(fmaf(score, unit, -above.at[i][e / 2]));
    sum.at[i][e / 2] += score;
  });
  for_each_row(sum, [](int, int, float& row) {
    row += __shfl_xor_sync(full_warp, row, 1);
    row += __shfl_xor_sync(full_warp, row, 2);
  });
}

// ---- merging chunks, in order ----

struct MergeFactors {
  float before, after;
};
// Merges the maximum and sum of a chunk into what the chunks before it gave.
__device__ __forceinline__ MergeFactors merge_factors(float& maximum, float& sum, float chunk_maximum,
                                                      float chunk_sum) {
  const float highest = fmaxf(maximum, chunk_maximum), above = finite_maximum(highest);
  const MergeFactors factors{exp2_fast(maximum - above), exp2_fast(chunk_maximum - above)};
  maximum = highest;
  sum = fmaf(sum, factors.before, chunk_sum * factors.after);
  return factors;
}
// `before` is 1 in most chunks, and a body may leave its multiplication out then.
__device__ __forceinline__ float merge_output(float out, float chunk_out, MergeFactors factors) {
  return fmaf(chunk_out, factors.after, out * factors.before);
}

// What a warp has of its rows after some chunks.
template <int rows, int columns>
struct RowsState {
  Accumulator<rows, columns> out;
  RowValues<rows> maximum, sum;

  __device__ __forceinline__ RowsState() {
    for_each_row(maximum, [&](int i, int h, float& row) {
      row = nothing;
      sum.at[i][h] = 0.0f;
    });
  }

  // merge_output() in two halves. The first merges a chunk's maximum and sum and brings `out` to the maximum of both,
  // which changes nothing where no row of the warp has a new one: of 64 chunks of like keys that is every second one.
  // Returns what the chunk's output is to be multiplied by.
  __device__ __forceinline__ RowValues<rows> expect(const RowValues<rows>& chunk_maximum,
                                                    const RowValues<rows>& chunk_sum) {
    RowValues<rows> before, after;
    bool ones = true;
    for_each_row(before, [&](int i, int h, float& of_row) {
      const MergeFactors factors =
          merge_factors(maximum.at[i][h], sum.at[i][h], chunk_maximum.at[i][h], chunk_sum.at[i][h]);
      of_row = factors.before;
      after.at[i][h] = factors.after;
      ones = ones && factors.before == 1.0f;
    });
    if (!__all_sync(full_warp, ones))
      for_each(out, [&](int i, int, int e, float& element) { element *= before.at[i][e / 2]; });
    return after;
  }
  // Adds an element of the chunk's output.
  __device__ __forceinline__ void add(int i, int j, int e, float of_chunk, const RowValues<rows>& after) {
    out.at[i][j][e] = fmaf(of_chunk, after.at[i][e / 2], out.at[i][j][e]);
  }
};

// What becomes of a row's state: out · final_factor, + 0 so that any zero is +0, and its lse. A row that saw nothing: 0
// and −∞.
__device__ __forceinline__ float final_factor(float sum) { return sum == 0.0f ? 0.0f : 1.0f / sum; }
__device__ __forceinline__ float natural_lse(float maximum, float sum) {
  return sum == 0.0f ? nothing : fmaf(maximum, 0.693147180559945309f, logf(sum));
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE::flash
