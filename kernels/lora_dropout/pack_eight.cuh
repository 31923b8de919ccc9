// Eight neighbours of a row, rounded.
#pragma once

#include "kernels/cuda/tile/fragment.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

// Two at a time: rounding one takes a slow conversion.
template <class T>
__device__ __forceinline__ GroupBits<T> pack_eight(const float (&values)[8]) {
  GroupBits<T> bits;
  bits.vectors[0].x = pack_pair(values[0], values[1], T{});
  bits.vectors[0].y = pack_pair(values[2], values[3], T{});
  bits.vectors[0].z = pack_pair(values[4], values[5], T{});
  bits.vectors[0].w = pack_pair(values[6], values[7], T{});
  return bits;
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
