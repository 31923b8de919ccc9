// Inline PTX, each instruction with a host body for simt; what needs sm_90, or few kernels take, stands in ptx/.
// Fragment layouts are those of the PTX manual ("Matrix fragments for mma"), with g = lane / 4 and t = lane % 4.
#pragma once

#include "kernels/cuda/device.h"
#if LATHE_SIMT
#include "kernels/simt/tensor_core.h"
#endif

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

#if LATHE_SIMT

// Copies 16 bytes of global memory to shared memory, of which the first `valid_bytes` are read and the rest are zeros.
// The copy is done when its thread has waited for its group, and visible to others after a barrier.
inline void cp_async_16(void* shared, const void* global, int valid_bytes = 16,
                        ::lathe::simt::Where where = ::lathe::simt::Where::current()) {
  ::lathe::simt::async_copy(shared, global, 16, valid_bytes, where);
}
inline void cp_async_commit() { ::lathe::simt::async_commit(); }
template <int groups_left>
inline void cp_async_wait() {
  ::lathe::simt::async_wait(groups_left);
}

// Four 8×8 matrices of 16-bit elements: lane l gives the address of row l % 8 of matrix l / 8; registers[i] gets matrix
// i's elements (g, 2t) and (g, 2t + 1); with `transposed`, (2t, g) and (2t + 1, g).
inline void ldmatrix_x4(uint32_t (&registers)[4], const void* row,
                        ::lathe::simt::Where where = ::lathe::simt::Where::current()) {
  ::lathe::simt::load_matrices(registers, 4, row, false, where);
}
inline void ldmatrix_x4_transposed(uint32_t (&registers)[4], const void* row,
                                   ::lathe::simt::Where where = ::lathe::simt::Where::current()) {
  ::lathe::simt::load_matrices(registers, 4, row, true, where);
}

// 2^x by the special function unit, within 2 ulp; results below 2^-126 are 0.
inline float exp2_fast(float x) { return x < -126.0f ? 0.0f : ::exp2f(x); }

// c [16 × 8] += a [16 × 16] · b [16 × 8], products and sums in f32.
inline void mma_m16n8k16_bf16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                              ::lathe::simt::Where where = ::lathe::simt::Where::current()) {
  ::lathe::simt::multiply_tiles(c, a, b, ::lathe::simt::TileElement::bf16, where);
}
inline void mma_m16n8k16_f16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                             ::lathe::simt::Where where = ::lathe::simt::Where::current()) {
  ::lathe::simt::multiply_tiles(c, a, b, ::lathe::simt::TileElement::f16, where);
}
// c [16 × 8] += a [16 × 8] · b [8 × 8], operands rounded to tf32 by the hardware's truncation.
inline void mma_m16n8k8_tf32(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                             ::lathe::simt::Where where = ::lathe::simt::Where::current()) {
  ::lathe::simt::multiply_tiles(c, a, b, ::lathe::simt::TileElement::tf32, where);
}
// c [16 × 8] += a [16 × 32] · b [32 × 8] in i32.
inline void mma_m16n8k32_s8(int32_t (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                            ::lathe::simt::Where where = ::lathe::simt::Where::current()) {
  ::lathe::simt::multiply_tiles(c, a, b, where);
}

#else

__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

__device__ __forceinline__ void cp_async_16(void* shared, const void* global, int valid_bytes = 16) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global),
               "r"(valid_bytes)
               : "memory");
}
__device__ __forceinline__ void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int groups_left>
__device__ __forceinline__ void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(groups_left) : "memory");
}

__device__ __forceinline__ void ldmatrix_x4(uint32_t (&registers)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
               : "r"(shared_address(row))
               : "memory");
}
__device__ __forceinline__ void ldmatrix_x4_transposed(uint32_t (&registers)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
               : "r"(shared_address(row))
               : "memory");
}

__device__ __forceinline__ float exp2_fast(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

#define LATHE_MMA(instruction, c_constraint)                                                    \
  asm volatile(instruction " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"   \
               : c_constraint(c[0]), c_constraint(c[1]), c_constraint(c[2]), c_constraint(c[3]) \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))

__device__ __forceinline__ void mma_m16n8k16_bf16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  LATHE_MMA("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32", "+f");
}
__device__ __forceinline__ void mma_m16n8k16_f16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  LATHE_MMA("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32", "+f");
}
__device__ __forceinline__ void mma_m16n8k8_tf32(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  LATHE_MMA("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32", "+f");
}
__device__ __forceinline__ void mma_m16n8k32_s8(int32_t (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  LATHE_MMA("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32", "+r");
}
#undef LATHE_MMA

#endif

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
