// A row of logits as the kernels of sampling see it: keys in the order of logits, integer weights, and how threads
// share a range of it.
#pragma once

#include "kernels/cuda/row.h"
#include "kernels/sampling/cuda.h"
#include "kernels/sampling/weight.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

using u64 = unsigned long long;

__device__ __forceinline__ u64 warp_total(u64 value) {
  LATHE_UNROLL
  for (int lanes = 16; lanes > 0; lanes /= 2) value += __shfl_xor_sync(full_warp, value, lanes);
  return value;
}
__device__ __forceinline__ u64 warp_largest(u64 value) {
  LATHE_UNROLL
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    const u64 other = __shfl_xor_sync(full_warp, value, lanes);
    if (other > value) value = other;
  }
  return value;
}

// Unsigned numbers in the order of the logits; both zeros are one.
__device__ __forceinline__ unsigned key_of(float logit) {
  const unsigned bits = __float_as_uint(logit + 0.0f);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ float logit_of(unsigned key) {
  return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

struct Range {
  int64_t begin, end;
};
// Of so many equal parts of a range, one after another.
__device__ __forceinline__ Range part_of(Range whole, int parts, int index) {
  const int64_t size = (whole.end - whole.begin + parts - 1) / parts, begin = whole.begin + index * size;
  return {begin < whole.end ? begin : whole.end, begin + size < whole.end ? begin + size : whole.end};
}

// body(i, logit) for the elements of a range that this one of `threads` threads owns; `together` loads are under way at
// a time, in the last turn as well.
template <int threads, int together = 8, class Body>
__device__ __forceinline__ void for_thread(const float* z, Range range, int thread, Body body) {
  for (int64_t first = range.begin + thread; first < range.end; first += together * threads) {
    float logits[together];
    LATHE_UNROLL
    for (int j = 0; j < together; ++j) {
      const int64_t i = first + j * threads;
      logits[j] = i < range.end ? z[i] : 0.0f;
    }
    LATHE_UNROLL
    for (int j = 0; j < together; ++j) {
      const int64_t i = first + j * threads;
      if (i < range.end) body(i, logits[j]);
    }
  }
}

// What all threads of a launch know of a row that they draw from.
struct Row {
  const float* z;
  int64_t columns;
  float largest, inverse_temperature;
  u64 least_weight;

  // In units of 2^-40 (sampling.h).
  __device__ __forceinline__ u64 weight(float logit) const {
    const float z_of = (logit - largest) * inverse_temperature;
    float fraction, exponent;
    exponential_parts(fmaxf(z_of, sampling_lowest_z), fraction, exponent);
    return (static_cast<u64>(static_cast<unsigned>(fraction * 0x1p24f)) << 16) >> static_cast<int>(-exponent);
  }
  // How near to the largest logit one is, in eighths of a nat: 255 is nearest. In the order of the keys.
  __device__ __forceinline__ unsigned nearness(float logit) const {
    const float eighths = (largest - logit) * inverse_temperature * 8.0f;
    return eighths < 255.0f ? 255u - static_cast<unsigned>(eighths) : 0u;
  }
};

// What a row turned out to be: the reason why nothing is drawn of it, or its first largest token.
struct Best {
  u64 key_and_place;  // the key, and of equals the first place
  bool has_nan;

  __device__ __forceinline__ float largest() const { return logit_of(static_cast<unsigned>(key_and_place >> 32)); }
  __device__ __forceinline__ int32_t place() const {
    return static_cast<int32_t>(0xffffffffu - static_cast<unsigned>(key_and_place));
  }
  // 0, or a BrokenLogits.
  __device__ __forceinline__ int32_t fault() const {
    const float top = largest();
    return has_nan ? -1 : top == INFINITY ? -2 : top == -INFINITY ? -3 : 0;
  }
};

// From the parts that scan_kernel left; called by whole warps.
__device__ __forceinline__ Best best_of(const SampleState& state, int parts) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  const u64 best = warp_largest(lane < parts ? u64{state.best[lane]} : 0);
  return {best, __any_sync(full_warp, lane < parts && state.has_nan[lane] != 0) != 0};
}

__device__ __forceinline__ SampledRow settings_of(const SampleCuda& a, unsigned row) {
  return a.stored != nullptr ? a.stored[row] : a.settings[row];
}
__device__ __forceinline__ bool cuts_to_top_k(const SampledRow& settings, int64_t columns) {
  return settings.top_k > 0 && settings.top_k < columns;
}
__device__ __forceinline__ bool cuts_to_nucleus(const SampledRow& settings) { return settings.top_p < 1.0f; }

__device__ __forceinline__ Row row_of(const SampleCuda& a, unsigned row, const SampledRow& settings, const Best& best) {
  return {a.logits + row * a.stride, a.columns, best.largest(), settings.inverse_temperature, settings.least_weight};
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
