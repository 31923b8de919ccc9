// What the CPU body of gradient_norm reads and writes.
#pragma once

#include <cstdint>

#include "core/dtype.h"
#include "kernels/simd/isa.h"

namespace lathe::kernels {

inline constexpr int64_t square_block = 4096;

// sums[k] = Σ x² of elements [k · square_block, (k + 1) · square_block) below count, for k in [begin, end).
struct SumOfSquaresArgs {
  DType dtype;  // f32 | bf16 | f16
  const void* x;
  int64_t count;
  double* sums;
  int64_t begin, end;
};

template <Isa>
void sum_of_squares_blocks(SumOfSquaresArgs args);

}  // namespace lathe::kernels
