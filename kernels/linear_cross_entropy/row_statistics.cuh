// The largest logit of a row and Σ exp(z − max z), in device code: one order for the loss, for token_logprobs and for
// what is drawn, so that their log-probabilities are the same bits.
//
// Thread t of 256 sums the groups of eight logits t, t + 256, t + 512, … (online softmax, Milakov & Gimelshein 2018),
// and the threads' sums are added in one order: a row's bits depend on its length alone. Threads need not be of one
// block for the first, which takes the time.
#pragma once

#include "kernels/cuda/row.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

inline constexpr int statistics_threads = 256, statistics_warps = statistics_threads / 32;
inline constexpr int statistics_stride = statistics_threads * group_elements;

// Of a thread's own logits, or of the row: max z, Σ exp(z − max z).
struct RowStatistics {
  float largest, sum;
};

// What the warps of a block tell each other.
struct StatisticsOfWarps {
  float largest[statistics_warps], sums[statistics_warps];
};

// Eight logits, capped and over the temperature; −∞ past the row's end. The product is rounded, never fused with what
// follows: logits that were divided before (Transformer::logits) give the same log-probabilities.
template <bool aligned>
__device__ __forceinline__ Group load_logits(const float* z, int64_t i, int64_t columns, float softcap,
                                             float inverse_temperature) {
  const int64_t left = columns - i;
  Group group = load_group<aligned>(z + i, left < group_elements ? static_cast<int>(left) : group_elements);
  LATHE_UNROLL
  for (int j = 0; j < group_elements; ++j) {
    if (softcap > 0.0f) group.at[j] = softcap * tanhf(group.at[j] / softcap);
    group.at[j] = __fmul_rn(group.at[j], inverse_temperature);
    if (j >= left) group.at[j] = -INFINITY;
  }
  return group;
}

__device__ __forceinline__ void add_logits(RowStatistics& own, const Group& group) {
  float top = own.largest;
  LATHE_UNROLL
  for (int j = 0; j < group_elements; ++j) top = fmaxf(top, group.at[j]);
  if (top > own.largest) {
    own.sum *= expf(own.largest - top);
    own.largest = top;
  }
  const float shift = own.largest == -INFINITY ? 0.0f : own.largest;  // never (−∞) − (−∞)
  LATHE_UNROLL
  for (int j = 0; j < group_elements; ++j) own.sum += expf(group.at[j] - shift);
}

// Of thread `thread`; the loads of four groups are under way together, where a wait for each took 42 µs of a row of
// 128256 (H100).
template <bool aligned>
__device__ __forceinline__ RowStatistics thread_statistics(const float* z, int64_t columns, float softcap,
                                                           float inverse_temperature, int thread) {
  constexpr int together = 4;
  RowStatistics own{-INFINITY, 0.0f};
  int64_t i = int64_t{thread} * group_elements;
  for (; i + (together - 1) * statistics_stride < columns; i += together * statistics_stride) {
    Group groups[together];
    LATHE_UNROLL
    for (int g = 0; g < together; ++g)
      groups[g] = load_logits<aligned>(z, i + g * statistics_stride, columns, softcap, inverse_temperature);
    LATHE_UNROLL
    for (int g = 0; g < together; ++g) add_logits(own, groups[g]);
  }
  for (; i < columns; i += statistics_stride)
    add_logits(own, load_logits<aligned>(z, i, columns, softcap, inverse_temperature));
  return own;
}

// What a warp of statistics_by_warp() tells its lanes.
struct GroupsOfWarp {
  float exponentials[32][group_elements], factors[32];
};

// thread_statistics() by a warp, for a few rows that are waited for: each lane has one of 32 groups, and only the
// additions, in the thread's order, are one after another. Without softcap or temperature.
template <bool aligned>
__device__ __forceinline__ RowStatistics statistics_by_warp(const float* z, int64_t columns, int thread,
                                                            GroupsOfWarp& shared) {
  const int lane = threadIdx.x % 32;
  constexpr int64_t turn = int64_t{32} * statistics_stride;
  const auto load = [&](int64_t i) { return load_logits<aligned>(z, i, columns, 0.0f, 1.0f); };
  RowStatistics own{-INFINITY, 0.0f};
  int64_t i = int64_t{thread} * group_elements + lane * int64_t{statistics_stride};
  Group next = load(i);
  for (int64_t first = int64_t{thread} * group_elements; first < columns; first += turn, i += turn) {
    const Group group = next;
    next = load(i + turn);
    float top = group.at[0];
    LATHE_UNROLL
    for (int j = 1; j < group_elements; ++j) top = fmaxf(top, group.at[j]);
    LATHE_UNROLL
    for (int lanes = 1; lanes < 32; lanes *= 2) {  // of the groups up to the lane's
      const float before = __shfl_up_sync(full_warp, top, lanes);
      if (lane >= lanes) top = fmaxf(top, before);
    }
    top = fmaxf(top, own.largest);
    float before = __shfl_up_sync(full_warp, top, 1);
    if (lane == 0) before = own.largest;
    const float shift = top == -INFINITY ? 0.0f : top;  // never (−∞) − (−∞)
    __syncwarp();                                       // the groups before these have been added
    shared.factors[lane] = top > before ? expf(before - top) : 1.0f;
    LATHE_UNROLL
    for (int j = 0; j < group_elements; ++j) shared.exponentials[lane][j] = expf(group.at[j] - shift);
    __syncwarp();  // they are there
    const int64_t left = (columns - first + statistics_stride - 1) / statistics_stride;
    const int count = left < 32 ? static_cast<int>(left) : 32;
#pragma unroll 4
    for (int l = 0; l < count; ++l) {
      own.sum *= shared.factors[l];
      LATHE_UNROLL
      for (int j = 0; j < group_elements; ++j) own.sum += shared.exponentials[l][j];
    }
    own.largest = __shfl_sync(full_warp, top, 31);
  }
  return own;
}

// Of the row, the same in every thread, from those of a block's 256 threads. NaN and +∞ in the row make the sum NaN.
__device__ __forceinline__ RowStatistics row_statistics(RowStatistics own, StatisticsOfWarps& shared) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const float warp_largest = warp_max(own.largest);
  if (lane == 0) shared.largest[warp] = warp_largest;
  __syncthreads();  // the warps' maxima are there
  float row_largest = shared.largest[0];
  for (int w = 1; w < statistics_warps; ++w) row_largest = fmaxf(row_largest, shared.largest[w]);
  if (own.largest != -INFINITY) own.sum *= expf(own.largest - row_largest);
  const float warp_sum_of = warp_sum(own.sum);
  if (lane == 0) shared.sums[warp] = warp_sum_of;
  __syncthreads();  // the warps' sums are there
  float row_sum = shared.sums[0];
  for (int w = 1; w < statistics_warps; ++w) row_sum += shared.sums[w];
  return {row_largest, row_sum};
}

__device__ __forceinline__ float log_of_sum(float sum) { return static_cast<float>(log(static_cast<double>(sum))); }

// The logit is taken relative to the largest first, so that large logits cost no digits.
__device__ __forceinline__ float log_probability(float logit, RowStatistics row) {
  return (logit - row.largest) - log_of_sum(row.sum);
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
