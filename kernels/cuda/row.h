// Rows as a warp reads them: lane l owns the groups of eight elements l, l + 32, l + 64, …, whatever the alignment and
// the number of rows, so that a row's sums have one order that depends on its length alone.
#pragma once

#include "kernels/arguments/matrix.h"
#include "kernels/cuda/dependent_launch.h"

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
template <int lanes = 32>  // that are neighbours, each with the others' sum
__device__ __forceinline__ float warp_sum(float value) {
  LATHE_UNROLL
  for (int apart = lanes / 2; apart > 0; apart /= 2) value += __shfl_xor_sync(full_warp, value, apart);
  return value;
}
__device__ __forceinline__ float warp_max(float value) {
  LATHE_UNROLL
  for (int lanes = 16; lanes > 0; lanes /= 2) value = fmaxf(value, __shfl_xor_sync(full_warp, value, lanes));
  return value;
}

// ---- a kernel that sums along rows ----

// A warp for each short row: no barrier. A long one has eight, because a step of decoding has few rows, and one warp
// alone would wait for memory sixteen times in a row of 4096. The columns alone choose, and so a row's sums depend on
// its length alone.
inline constexpr int64_t short_row = 1024;  // columns: four turns of a warp
inline constexpr int warps_of_long_row = 8;

// How the rows fall into blocks of threads.
template <int warps_of_row>
struct RowThreads {
  static constexpr int warps = warps_of_row == 1 ? 4 : warps_of_row, threads = warps * 32;
  static constexpr int in_block = warps / warps_of_row;
  static constexpr int step = warps_of_row * 32 * group_elements;  // from a thread's group to its next

  static __device__ __forceinline__ int64_t row() {
    return int64_t{blockIdx.x} * in_block + threadIdx.x / (warps_of_row * 32);
  }
  static __device__ __forceinline__ int first_column() { return threadIdx.x % (warps_of_row * 32) * group_elements; }
};

// Sums over the row, the same in every thread: each warp's sum, then the warps in order. One object in a kernel, called
// as often as there are sums, by all threads of the row.
template <int warps_of_row>
class RowSum {
 public:
  __device__ __forceinline__ float operator()(float value) {
    value = warp_sum(value);
    if constexpr (warps_of_row > 1) {
      float* const sums = block_shared<Sums>().of[turn_];
      turn_ ^= 1;
      if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = value;
      __syncthreads();  // every warp's sum is there, and the sums of the call before have been read
      value = sums[0];
      LATHE_UNROLL
      for (int w = 1; w < warps_of_row; ++w) value += sums[w];
    }
    return value;
  }

 private:
  struct Sums {
    float of[2][warps_of_row];  // in turn, so that a call has one barrier and not two
  };
  int turn_ = 0;
};

// Starts the kernel on all rows of args: the one for RowThreads<1> or for RowThreads<warps_of_long_row>.
template <Launch how = Launch::after, class Args>
void launch_rows(const char* name, void (*short_rows)(Args), void (*long_rows)(Args), const Args& args) {
  const bool is_short = args.columns <= short_row;
  const int64_t in_block = is_short ? RowThreads<1>::in_block : 1;
  const LaunchConfig config{.name = name,
                            .grid = dim3(static_cast<unsigned>((args.row_end + in_block - 1) / in_block)),
                            .block = dim3(is_short ? RowThreads<1>::threads : RowThreads<warps_of_long_row>::threads)};
  how == Launch::dependent ? launch_dependent(config, is_short ? short_rows : long_rows, args)
                           : launch(config, is_short ? short_rows : long_rows, args);
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
