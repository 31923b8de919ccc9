// Rows as a warp reads them: lane l owns the groups of eight elements l, l + 32, l + 64, …, whatever the alignment and the
// number of rows, so that a row's sums have one order that depends on its length alone.
#pragma once

#include "kernels/arguments/matrix.h"
#include "kernels/cuda/device.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

inline constexpr unsigned full_warp = 0xffffffffu;
inline constexpr int group_elements = 8;

#if LATHE_SIMT
template <class Vector>
Vector load_vector(const void* address, ::lathe::simt::Where where = ::lathe::simt::Where::current()) {
  ::lathe::simt::check_aligned(address, sizeof(Vector), where);
  Vector value;
  __builtin_memcpy(&value, address, sizeof value);  // goes on after a report
  return value;
}
template <class Vector>
void store_vector(void* address, Vector value, ::lathe::simt::Where where = ::lathe::simt::Where::current()) {
  ::lathe::simt::check_aligned(address, sizeof(Vector), where);
  __builtin_memcpy(address, &value, sizeof value);
}
#else
template <class Vector>
__device__ __forceinline__ Vector load_vector(const void* address) {
  return *static_cast<const Vector*>(address);
}
template <class Vector>
__device__ __forceinline__ void store_vector(void* address, Vector value) {
  *static_cast<Vector*>(address) = value;
}
#endif

// Eight elements as f32. `count` < 8 only in a row's last group: the others are 0.
struct Group {
  float at[group_elements];
};

// The elements of the group that begins at `first`.
__device__ __forceinline__ int group_size(int64_t columns, int64_t first) {
  return columns - first < group_elements ? static_cast<int>(columns - first) : group_elements;
}

// Whether whole groups of a tensor can be moved as 16-byte vectors.
template <class T>
inline bool rows_aligned(const T* data, int64_t stride) {
  return reinterpret_cast<uintptr_t>(data) % 16 == 0 && stride * static_cast<int64_t>(sizeof(T)) % 16 == 0;
}
template <class T>
inline bool rows_aligned(const Matrix& matrix) {
  return rows_aligned(static_cast<const T*>(matrix.data), matrix.stride);
}
template <class T>
inline bool rows_aligned(const ConstMatrix& matrix) {
  return rows_aligned(static_cast<const T*>(matrix.data), matrix.stride);
}

template <class T>
__device__ __forceinline__ T* row_of(const Matrix& matrix, int64_t row) {
  return static_cast<T*>(matrix.data) + row * matrix.stride;
}
template <class T>
__device__ __forceinline__ const T* row_of(const ConstMatrix& matrix, int64_t row) {
  return static_cast<const T*>(matrix.data) + row * matrix.stride;
}

template <class T>
union GroupBits {
  uint4 vectors[group_elements * sizeof(T) / 16];
  T elements[group_elements];
};

// A whole group at a 16-byte boundary, as it lies there.
template <class T>
__device__ __forceinline__ GroupBits<T> load_bits(const T* address) {
  GroupBits<T> bits;
  LATHE_UNROLL
  for (int i = 0; i < static_cast<int>(sizeof bits.vectors / 16); ++i)
    bits.vectors[i] = load_vector<uint4>(address + i * (16 / static_cast<int>(sizeof(T))));
  return bits;
}
template <class T>
__device__ __forceinline__ void store_bits(T* address, const GroupBits<T>& bits) {
  LATHE_UNROLL
  for (int i = 0; i < static_cast<int>(sizeof bits.vectors / 16); ++i)
    store_vector<uint4>(address + i * (16 / static_cast<int>(sizeof(T))), bits.vectors[i]);
}

template <bool aligned, class T>
__device__ __forceinline__ Group load_group(const T* address, int count) {
  Group group;
  if (aligned && count == group_elements) {
    const GroupBits<T> bits = load_bits(address);
    LATHE_UNROLL
    for (int i = 0; i < group_elements; ++i) group.at[i] = to_float(bits.elements[i]);
  } else {
    LATHE_UNROLL
    for (int i = 0; i < group_elements; ++i) group.at[i] = i < count ? to_float(address[i]) : 0.0f;
  }
  return group;
}

template <bool aligned, class T>
__device__ __forceinline__ void store_group(T* address, const Group& group, int count) {
  if (aligned && count == group_elements) {
    GroupBits<T> bits;
    LATHE_UNROLL
    for (int i = 0; i < group_elements; ++i) bits.elements[i] = from_float<T>(group.at[i]);
    store_bits(address, bits);
  } else {
    LATHE_UNROLL
    for (int i = 0; i < group_elements; ++i)
      if (i < count) address[i] = from_float<T>(group.at[i]);
  }
}

// The sum over the warp, the same in every lane: halves are folded onto each other.
__device__ __forceinline__ float warp_sum(float value) {
  LATHE_UNROLL
  for (int lanes = 16; lanes > 0; lanes /= 2) value += __shfl_xor_sync(full_warp, value, lanes);
  return value;
}
__device__ __forceinline__ float warp_max(float value) {
  LATHE_UNROLL
  for (int lanes = 16; lanes > 0; lanes /= 2) value = fmaxf(value, __shfl_xor_sync(full_warp, value, lanes));
  return value;
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
