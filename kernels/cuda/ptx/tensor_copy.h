// Bulk copies of boxes of a matrix to shared memory (TMA, sm_90) in 128-byte swizzle: the lines of a box, 64 16-bit
// elements or fewer, lie 128 bytes apart, and their 16-byte vectors as SwizzledTile<T, rows, 64> has them.
#pragma once

#include "kernels/cuda/ptx/mbarrier.h"
#include "kernels/cuda/tensor_map.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

// The dynamic shared memory of a block, from a multiple of 1024 on: there lie the tiles in 128-byte swizzle. A kernel
// has this or dynamic_shared(), not both.
template <class T>
__device__ __forceinline__ T* swizzled_shared() {
#if LATHE_SIMT
  return static_cast<T*>(::lathe::simt::dynamic_shared_memory());
#else
  extern __shared__ __align__(1024) unsigned char lathe_swizzled_shared[];
  return reinterpret_cast<T*>(lathe_swizzled_shared);
#endif
}

// The box whose first element is (row, column), zeros where the matrix ends, to `tile`, a multiple of 1024 in dynamic
// shared memory. One thread issues it. Its 128 · box_rows bytes are completed on the barrier, which has been told to
// expect them. The map is a kernel's argument, const and __grid_constant__, or in device memory and acquired by this
// thread.
#if LATHE_SIMT
inline void tensor_copy(void* tile, const TensorMap& map, int row, int column, MBarrier& barrier,
                        Where where = Where::current()) {
  ::lathe::simt::tensor_copy(tile, map, {row, column}, &barrier.state, where);
}
// The same of one of several matrices.
inline void tensor_copy_of(int matrix, void* tile, const TensorMap& map, int row, int column, MBarrier& barrier,
                           Where where = Where::current()) {
  ::lathe::simt::tensor_copy(tile, map, {row, column, matrix}, &barrier.state, where);
}
// A map in device memory, where the host has put it before the kernel began, is there for this thread's copies. Every
// block owes it for each map that it copies by.
inline void acquire_map(const TensorMap& map) { ::lathe::simt::acquire_tensor_map(map); }
// tensor_copy() of memory at rest: nothing that a kernel before this one on its stream might still be writing. A
// dependent launch need not have waited for them (ptx/grid_dependency.h).
inline void tensor_copy_at_rest(void* tile, const TensorMap& map, int row, int column, MBarrier& barrier,
                                Where where = Where::current()) {
  ::lathe::simt::tensor_copy(tile, map, {row, column}, &barrier.state, where, true);
}
// The map will be asked for: it comes from a kernel's arguments, in memory.
inline void prefetch_map(const TensorMap&) {}
// True for one lane of a warp, all of whose lanes come here, and always for the same one: whose copies they are. Behind
// a comparison of lanes nvcc does not see that there is one, and has a loop around each copy.
inline bool elect_lane() { return threadIdx.x % 32 == 0; }
// The same box to that place in each block of the cluster whose rank is a bit of the mask; in each, its bytes are
// completed on the barrier that lies where this one does. All of them have to be done with what lies there.
inline void tensor_copy_multicast(void* tile, const TensorMap& map, int row, int column, MBarrier& barrier,
                                  unsigned mask, Where where = Where::current()) {
  ::lathe::simt::tensor_copy_multicast(tile, map, row, column, &barrier.state, mask, where);
}
#else
__device__ __forceinline__ void tensor_copy(void* tile, const TensorMap& map, int row, int column, MBarrier& barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(
          shared_address(tile)),
      "l"(&map), "r"(column), "r"(row), "r"(shared_address(&barrier.state))
      : "memory");
}
__device__ __forceinline__ void tensor_copy_of(int matrix, void* tile, const TensorMap& map, int row, int column,
                                               MBarrier& barrier) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4}], [%5];" ::
          "r"(shared_address(tile)),
      "l"(&map), "r"(column), "r"(row), "r"(matrix), "r"(shared_address(&barrier.state))
      : "memory");
}
__device__ __forceinline__ void acquire_map(const TensorMap& map) {
  asm volatile("fence.proxy.tensormap::generic.acquire.sys [%0], 128;" ::"l"(&map) : "memory");
}
__device__ __forceinline__ void tensor_copy_at_rest(void* tile, const TensorMap& map, int row, int column,
                                                    MBarrier& barrier) {
  tensor_copy(tile, map, row, column, barrier);
}
__device__ __forceinline__ void prefetch_map(const TensorMap& map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}
__device__ __forceinline__ bool elect_lane() {
  uint32_t elected;
  asm volatile(
      "{\n"
      ".reg .pred p;\n"
      "elect.sync _|p, 0xffffffff;\n"
      "selp.u32 %0, 1, 0, p;\n"
      "}"
      : "=r"(elected));
  return elected != 0;
}
__device__ __forceinline__ void tensor_copy_multicast(void* tile, const TensorMap& map, int row, int column,
                                                      MBarrier& barrier, unsigned mask) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster "
      "[%0], [%1, {%2, %3}], [%4], %5;" ::"r"(shared_address(tile)),
      "l"(&map), "r"(column), "r"(row), "r"(shared_address(&barrier.state)), "h"(static_cast<uint16_t>(mask))
      : "memory");
}
#endif

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
