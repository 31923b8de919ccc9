// The rotation of a range of tokens: plain data, read by the bodies of every instruction set.
#pragma once

#include <cstdint>

#include "kernels/simd/dispatch.h"

namespace lathe::kernels {

struct RopeArgs {
  void* out;
  const void* x;
  const int32_t* positions;
  const float *cos_table, *sin_table;
  int64_t cos_row, sin_row;  // strides in elements, as below
  int64_t out_token, out_head, x_token, x_head;
  int64_t begin, end;  // tokens
  int64_t heads, half;
  float direction;  // 1, or −1 for the backward
  bool is_bf16;
};

}  // namespace lathe::kernels

LATHE_CPU_BODY(rope, const RopeArgs&)
