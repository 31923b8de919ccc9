// The rotation of a range of tokens: what the bodies read and write, and the CPU's.
#pragma once

#include "core/dtype.h"
#include "kernels/arguments/indices.h"
#include "kernels/simd/dispatch.h"

namespace lathe::kernels {

struct RopeArgs {
  DType dtype;  // f32 | bf16, of x and out
  void* out;
  const void* x;
  int64_t out_token, out_head, x_token, x_head;  // strides in elements, as below
  Indices positions;
  const float *cos_table, *sin_table;
  int64_t cos_row, sin_row, table_rows;
  int64_t heads, half;
  float direction;     // 1, or −1 for the backward
  int64_t begin, end;  // tokens
};

}  // namespace lathe::kernels

LATHE_CPU_BODY(rope, const RopeArgs&)
