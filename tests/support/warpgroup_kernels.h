// Kernels that prove mbarriers, bulk tensor copies and wgmma: those of the emulator, with planted faults, and, compiled
// by nvcc for sm_90a, those of a card.
#pragma once

#include <cstdint>

#include "core/device.h"
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
  stage_waited_for_after_its_wgmma,
  stage_released_before_the_wait,
  accumulator_read_in_flight,
  a_registers_written_in_flight,
  misaligned_swizzle,
  misaligned_operand,
  map_in_global_memory,
  copy_before_grid_wait,  // of a dependent launch
  wgmma_without_fence,
  wgmma_never_waited_for,
  copy_never_waited_for,
  other_operand_in_one_warp,
};

enum class WgmmaA { shared_k, shared_mn, registers };
struct WgmmaCase {
  DType dtype = DType::bf16;
  int n = 64;  // 8, 16, 32, 64, 96, 128 or 256
  WgmmaA a = WgmmaA::shared_k;
  bool b_along_n = false;
  bool proxy_fence = true;  // false: a planted fault
};

// Matrices [rows, columns] one after another, and a box of one of them, by one map for all in device memory.
struct BoxOfSeveral {
  const void* matrices;
  int count, rows, columns;
  int matrix, row, column, box_rows;
  void* map_room;        // 256 bytes
  bool acquires = true;  // false: a planted fault
};

// Matrices are bf16 or f16, and out f32, in memory of the device; they queue one kernel.
struct WarpgroupKernels {
  bool (*run_here)();  // the thread's device has wgmma

  // out [64, 64] = a [64, k] · b [64, k]ᵀ in bf16, k fastest and a multiple of 8: a warp fills two stages, a warpgroup
  // multiplies. `map_room`: 256 bytes.
  void (*product)(WarpgroupFault fault, float* out, const void* a, const void* b, int k, void* map_room);
  // out [64, n] = a [64, 64] · b [n, 64]ᵀ, k fastest in memory, laid into shared memory as said.
  void (*wgmma)(const WgmmaCase& wanted, float* out, const void* a, const void* b);
  // out [64, 8] = a [64, 64] · b [8, 64]ᵀ by mma.sync.
  void (*mma)(DType dtype, float* out, const void* a, const void* b);
  // out [box_rows, 64] = the box of [rows, columns] at (row, column), by a bulk copy, out of its swizzle.
  void (*tensor_copy)(void* out, const void* matrix, int rows, int columns, int row, int column, int box_rows);
  void (*tensor_copy_of)(void* out, const BoxOfSeveral& box);
};

// cuda: only where nvcc compiled it (LATHE_TEST_SM90A).
template <DeviceKind>
WarpgroupKernels warpgroup_kernels();

}  // namespace lathe::testing
