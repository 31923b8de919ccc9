// Kernels that prove the emulator's part of sm_90a: mbarriers, bulk tensor copies, wgmma.
#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace lathe::testing {

// One planted fault for each class of them.
enum class WarpgroupFault {
  none,
  mbarrier_without_block_barrier,
  mbarrier_not_fenced,
  mbarrier_never_initialised,
  too_many_arrivals,
  too_many_bytes_expected,
  wrong_parity,
  stage_read_before_it_arrived,
  stage_released_before_the_wait,
  accumulator_read_in_flight,
  a_registers_written_in_flight,
  misaligned_swizzle,
  misaligned_operand,
  map_in_global_memory,
  wgmma_without_fence,
  wgmma_never_waited_for,
  copy_never_waited_for,
  other_operand_in_one_warp,
};

// out [64, 64] f32 = a [64, k] · b [64, k]ᵀ in bf16, k fastest and a multiple of 8: a warp fills two stages, a
// warpgroup multiplies. `map_room`: 256 bytes of the device's memory.
void launch_warpgroup_product(WarpgroupFault fault, float* out, const void* a, const void* b, int k, void* map_room);

// out [64, n] f32 = a [64, 64] · b [n, 64]ᵀ, k fastest in memory, laid into shared memory as said.
enum class WgmmaA { shared_k, shared_mn, registers };
struct WgmmaCase {
  DType dtype = DType::bf16;
  int n = 64;  // 8, 16, 32, 64, 128 or 256
  WgmmaA a = WgmmaA::shared_k;
  bool b_along_n = false;
  bool proxy_fence = true;  // false: a planted fault
};
void launch_wgmma_case(const WgmmaCase& wanted, float* out, const void* a, const void* b);

// out [64, 8] f32 = a [64, 64] · b [8, 64]ᵀ by mma.sync, for comparison.
void launch_mma_case(DType dtype, float* out, const void* a, const void* b);

// out [rows, 64] = the box of [matrix_rows, columns] at (row, column), by a bulk copy, out of its swizzle.
void launch_tensor_copy(void* out, const void* matrix, int matrix_rows, int columns, int row, int column, int box_rows);

}  // namespace lathe::testing
