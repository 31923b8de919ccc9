// How rows of keys and values become elements of pages, in device code: kv_append and rope_append.
#pragma once

#include "kernels/cuda/row.h"
#include "kernels/paged_attention/cuda.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

// Of a row of i8: its scale, and what its elements are multiplied with. `most` is the largest of their magnitudes.
struct ByteScale {
  float scale, factor;
};
__device__ __forceinline__ ByteScale byte_scale(float most) {
  const bool is_zero = most < 0x1p-100f;
  return {is_zero ? 0.0f : most / 127.0f, is_zero ? 0.0f : 127.0f / most};
}

// Rounds to nearest even; |x| ≤ 127.
__device__ __forceinline__ int8_t to_i8(float x) { return static_cast<int8_t>(static_cast<int>(rintf(x))); }

// A group of eight, less at a row's end; 8 bytes at once where `aligned`.
__device__ __forceinline__ void store_i8(int8_t* row, int64_t d, int64_t dim, bool aligned, const Group& group,
                                         float factor) {
  const int count = group_size(dim, d);
  union {
    uint2 bits;
    int8_t elements[group_elements];
  } whole;
  LATHE_UNROLL
  for (int j = 0; j < group_elements; ++j) whole.elements[j] = j < count ? to_i8(group.at[j] * factor) : int8_t{0};
  if (aligned && count == group_elements) return store_vector<uint2>(row + d, whole.bits);
  LATHE_UNROLL
  for (int j = 0; j < group_elements; ++j)
    if (j < count) row[d + j] = whole.elements[j];
}

// Whether groups of a tensor with such strides begin at multiples of 16 bytes, of i8 at multiples of 8.
inline bool groups_aligned(const void* data, int64_t stride, DType dtype) {
  const int64_t group_bytes = dtype == DType::i8 ? 8 : 16;
  return reinterpret_cast<uintptr_t>(data) % static_cast<uintptr_t>(group_bytes) == 0 &&
         stride * size_of(dtype) % group_bytes == 0;
}
inline bool groups_aligned(const HeadRows& x, DType dtype) {
  return groups_aligned(x.data, x.token, dtype) && groups_aligned(x.data, x.head, dtype);
}
inline bool groups_aligned(const PageSide& x, DType dtype) {
  return groups_aligned(x.data, x.page, dtype) && groups_aligned(x.data, x.head, dtype) &&
         groups_aligned(x.data, x.token, dtype);
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
