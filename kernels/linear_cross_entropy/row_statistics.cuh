// The largest logit of a row and Σ exp(z − max z), in device code: one order for the loss, for token_logprobs and for
// what is drawn, so that their log-probabilities are the same bits.
//
// A row is cut into groups of 64 columns, and a group's exponentials are relative to its own largest logit (online
// softmax, Milakov & Gimelshein 2018). Of a group's pairs of neighbours, the t-th, t + 4-th, … are lane t's, in two
// chains that take them in turn: so a row of sums lies in four lanes after wgmma, and a product can make the statistics
// of logits that it has in registers (kernels/matmul/cuda/dense_sm_90a.cu), without their being read from memory.
// Thread t of 256 merges groups t, t + 256, … in order, and the threads' sums are added in one order: a row's bits
// depend on its length alone.
#pragma once

#include "kernels/cuda/ptx.h"
#include "kernels/cuda/row.h"
#include "kernels/matmul/cuda/column_statistics.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

inline constexpr int statistics_threads = 256, statistics_warps = statistics_threads / 32;
inline constexpr int statistics_group = ColumnStatistics::columns;
inline constexpr int statistics_lanes = 4;  // of a group

// Of a group, of a thread's groups, or of the row: max z, Σ exp(z − max z).
struct RowStatistics {
  float largest, sum;
};

// What the warps of a block tell each other.
struct StatisticsOfWarps {
  float largest[statistics_warps], sums[statistics_warps];
};

// exp(distance) for distances from a largest logit. Rounding the product costs |distance| · 2⁻²⁴ of the result, least
// where the result counts most.
__device__ __forceinline__ float exp_of_distance(float distance) { return exp2_fast(distance * 1.44269504088896341f); }

// What distances are taken from: never (−∞) − (−∞).
__device__ __forceinline__ float shift_for(float largest) { return largest == -INFINITY ? 0.0f : largest; }

// Of a group of which this lane of four has pairs t, t + 4, …, t + 28, the same in all four; −∞ past the row's end.
__device__ __forceinline__ RowStatistics group_statistics(const float2 (&pairs)[8]) {
  float largest = -INFINITY;
  LATHE_UNROLL
  for (int j = 0; j < 8; ++j) largest = fmaxf(largest, fmaxf(pairs[j].x, pairs[j].y));
  LATHE_UNROLL
  for (int apart = 1; apart < statistics_lanes; apart *= 2)
    largest = fmaxf(largest, __shfl_xor_sync(full_warp, largest, apart));
  const float shift = shift_for(largest);
  float chains[2];
  LATHE_UNROLL
  for (int j = 0; j < 8; ++j) {
    const float pair = exp_of_distance(pairs[j].x - shift) + exp_of_distance(pairs[j].y - shift);
    chains[j % 2] = j < 2 ? pair : chains[j % 2] + pair;
  }
  float sum = chains[0] + chains[1];
  LATHE_UNROLL
  for (int apart = 1; apart < statistics_lanes; apart *= 2) sum += __shfl_xor_sync(full_warp, sum, apart);
  return {largest, sum};
}

// The same bits of a group in memory, of which this lane of four has the four columns from 16 i + 4 · lane on: of
// pairs 2 · (lane % 2) and the next, the chain of even turns (lanes 0 and 1) or of odd ones.
__device__ __forceinline__ RowStatistics group_statistics(const float4 (&quarters)[4]) {
  float largest = -INFINITY;
  LATHE_UNROLL
  for (int i = 0; i < 4; ++i)
    largest = fmaxf(fmaxf(largest, fmaxf(quarters[i].x, quarters[i].y)), fmaxf(quarters[i].z, quarters[i].w));
  LATHE_UNROLL
  for (int apart = 1; apart < statistics_lanes; apart *= 2)
    largest = fmaxf(largest, __shfl_xor_sync(full_warp, largest, apart));
  const float shift = shift_for(largest);
  float low = 0.0f, high = 0.0f;
  LATHE_UNROLL
  for (int i = 0; i < 4; ++i) {
    const float first = exp_of_distance(quarters[i].x - shift) + exp_of_distance(quarters[i].y - shift),
                second = exp_of_distance(quarters[i].z - shift) + exp_of_distance(quarters[i].w - shift);
    low = i == 0 ? first : low + first;
    high = i == 0 ? second : high + second;
  }
  low += __shfl_xor_sync(full_warp, low, 2);  // the other chain
  high += __shfl_xor_sync(full_warp, high, 2);
  const float sum = low + high;
  return {largest, sum + __shfl_xor_sync(full_warp, sum, 1)};
}

// The next of a thread's groups.
__device__ __forceinline__ void add_group(RowStatistics& own, RowStatistics group) {
  const float largest = fmaxf(own.largest, group.largest), shift = shift_for(largest);
  own.sum = own.sum * exp_of_distance(own.largest - shift) + group.sum * exp_of_distance(group.largest - shift);
  own.largest = largest;
}

// A logit as the statistics have it, capped and over the temperature. The product is rounded, never fused with what
// follows: logits that were divided before (Transformer::logits) give the same log-probabilities.
__device__ __forceinline__ float scaled_logit(float logit, float softcap, float inverse_temperature) {
  if (softcap > 0.0f) logit = softcap * tanhf(logit / softcap);
  return __fmul_rn(logit, inverse_temperature);
}

// A row of logits in memory.
struct LogitsRow {
  const float* z;
  int64_t columns;
  float softcap = 0.0f, inverse_temperature = 1.0f;
};

// What a lane of four has of some groups, `apart` from one to the next, as it lies in memory: nothing is done with a
// number before all of them have been asked for. Zeros past the row's end.
template <bool aligned, int count>
__device__ __forceinline__ void read_quarters(float4 (&quarters)[count][4], const LogitsRow& row, int64_t first,
                                              int apart, int lane) {
  const int64_t begin = first * statistics_group + 4 * lane, step = int64_t{apart} * statistics_group;
  const float* from = row.z + begin;
  if (aligned && begin + (count - 1) * step + 16 * 3 + 4 <= row.columns) {
    LATHE_UNROLL
    for (int g = 0; g < count; ++g) {
      LATHE_UNROLL
      for (int i = 0; i < 4; ++i) quarters[g][i] = load_vector<float4>(from + g * step + 16 * i);
    }
    return;
  }
  LATHE_UNROLL
  for (int g = 0; g < count; ++g) {
    LATHE_UNROLL
    for (int i = 0; i < 4; ++i) {
      const int64_t at = g * step + 16 * i, left = row.columns - begin - at;
      quarters[g][i] = make_float4(left > 0 ? from[at] : 0.0f, left > 1 ? from[at + 1] : 0.0f,
                                   left > 2 ? from[at + 2] : 0.0f, left > 3 ? from[at + 3] : 0.0f);
    }
  }
}

// Of one of them, group `group` of the row.
__device__ __forceinline__ RowStatistics statistics_of_quarters(const float4 (&raw)[4], const LogitsRow& row,
                                                                int64_t group, int lane) {
  const int64_t all_left = row.columns - group * statistics_group - 4 * lane;
  const int left = all_left < statistics_group ? static_cast<int>(all_left < 0 ? 0 : all_left) : statistics_group;
  float4 quarters[4];
  LATHE_UNROLL
  for (int i = 0; i < 4; ++i) {
    const auto scaled = [&](float logit, int at) {
      return 16 * i + at < left ? scaled_logit(logit, row.softcap, row.inverse_temperature) : -INFINITY;
    };
    quarters[i] = make_float4(scaled(raw[i].x, 0), scaled(raw[i].y, 1), scaled(raw[i].z, 2), scaled(raw[i].w, 3));
  }
  return group_statistics(quarters);
}

// Of this thread of a block of 256. Four lanes read a group of each of theirs in turn; the loads of all four are under
// way together, where a wait for each took 42 µs of a row of 128256 (H100).
template <bool aligned>
__device__ __forceinline__ RowStatistics thread_statistics(const LogitsRow& row) {
  const int lane = static_cast<int>(threadIdx.x) % statistics_lanes;
  RowStatistics own{-INFINITY, 0.0f};
  for (int64_t turn = 0; turn * statistics_group < row.columns; turn += statistics_threads) {
    const int64_t first = turn + threadIdx.x - lane;
    float4 quarters[statistics_lanes][4];
    read_quarters<aligned>(quarters, row, first, 1, lane);
    LATHE_UNROLL
    for (int g = 0; g < statistics_lanes; ++g) {
      const RowStatistics group = statistics_of_quarters(quarters[g], row, first + g, lane);
      if (g == lane) add_group(own, group);
    }
  }
  return own;
}

// The same where a product has left each group's, as pairs.
__device__ __forceinline__ RowStatistics thread_statistics(const float* pairs, int64_t groups) {
  RowStatistics own{-INFINITY, 0.0f};
  for (int64_t g = threadIdx.x; g < groups; g += statistics_threads) {
    const float2 pair = load_vector<float2>(pairs + 2 * g);
    add_group(own, {pair.x, pair.y});
  }
  return own;
}

// thread_statistics() of thread `thread` by a warp, for a few rows that are waited for: eight of its groups at a time.
template <bool aligned>
__device__ __forceinline__ RowStatistics statistics_by_warp(const LogitsRow& row, int thread) {
  constexpr int together = 32 / statistics_lanes;
  const int lane = static_cast<int>(threadIdx.x) % statistics_lanes,
            place = static_cast<int>(threadIdx.x) % 32 / statistics_lanes;
  RowStatistics own{-INFINITY, 0.0f};
  for (int64_t turn = thread; turn * statistics_group < row.columns; turn += together * statistics_threads) {
    const int64_t group = turn + place * statistics_threads;
    float4 quarters[1][4];
    read_quarters<aligned>(quarters, row, group, 0, lane);
    const RowStatistics found = statistics_of_quarters(quarters[0], row, group, lane);
    LATHE_UNROLL
    for (int g = 0; g < together; ++g)
      add_group(own, {__shfl_sync(full_warp, found.largest, g * statistics_lanes),
                      __shfl_sync(full_warp, found.sum, g * statistics_lanes)});
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
  if (own.largest != -INFINITY) own.sum *= exp_of_distance(own.largest - row_largest);
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
