// What the CUDA bodies of convolutions over tokens (short_conv.h, kernels/causal_conv/causal_conv.h) share.
#pragma once

#include "kernels/cuda/element.h"
#include "kernels/cuda/elementwise.h"
#include "kernels/short_conv/taps.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

// The last sequence that begins at or before the row and has it.
__device__ __forceinline__ int sequence_of(const int32_t* bounds, int sequences, int64_t row) {
  int first = 0, last = sequences - 1;
  while (first < last) {
    const int middle = (first + last) / 2;
    if (bounds[middle + 1] > row) {
      last = middle;
    } else {
      first = middle + 1;
    }
  }
  return first;
}

__device__ __forceinline__ int least(int64_t a, int b) { return a < b ? static_cast<int>(a) : b; }

// Eight columns of every row, or less at a row's end. Conv: ConvTaps and what is convolved.
template <class T, bool aligned, class Conv>
struct ConvColumns {
  const Conv& conv;
  int64_t column;
  int count;

  __device__ __forceinline__ Group of(const ConstMatrix& matrix, int64_t row) const {
    return load_group<aligned>(row_of<T>(matrix, row) + column, count);
  }
  __device__ __forceinline__ Group bias() const {
    if (conv.bias == nullptr) return Group{};
    return load_group<false>(static_cast<const T*>(conv.bias) + column, count);
  }
  // sum + the tap of the token that is k before ∘ group.
  __device__ __forceinline__ void add_tap(Group& sum, int k, const Group& group) const {
    const T* const weight = static_cast<const T*>(conv.weight) + column * conv.taps + (conv.taps - 1 - k);
    LATHE_UNROLL
    for (int i = 0; i < group_elements; ++i)
      if (i < count) sum.at[i] = fmaf(to_float(weight[i * conv.taps]), group.at[i], sum.at[i]);
  }
};

// Sums of weights: a block for 32 columns. Warp w sums the tokens w, w + 8, w + 16, … of a sequence, counted from its
// start; the eight sums are added in order, then the sequences in order: the bits depend on the sequence alone.
inline constexpr int weight_columns = 32, weight_warps = 8;
static_assert(most_conv_taps <= weight_warps);

struct WeightSums {
  float of_warps[weight_warps][weight_columns];
};

// The eight sums of a lane's column, in the threads of warp 0. For all threads of the block.
__device__ __forceinline__ float sum_of_warps(WeightSums& sums, float own) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  sums.of_warps[warp][lane] = own;
  __syncthreads();  // the eight sums are there
  float sum = 0.0f;
  if (warp == 0) {
    sum = sums.of_warps[0][lane];
    for (int w = 1; w < weight_warps; ++w) sum += sums.of_warps[w][lane];
  }
  __syncthreads();  // and have been read
  return sum;
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
