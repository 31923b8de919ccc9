// What the bodies of rope read and write: the rotation of a range of tokens.
#pragma once

#include "core/device.h"
#include "core/dtype.h"
#include "kernels/arguments/indices.h"
#include "kernels/simd/isa.h"

namespace lathe::kernels {

struct RopeArgs {
  DType dtype;  // f32 | bf16 | f16, of x and out
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

// cpu.cpp: tokens [begin, end).
template <Isa>
void rope_tokens(const RopeArgs& args);

// cuda.cu: all tokens, in the device's memory; positions may be on the host.
template <DeviceKind>
void rope_tokens(const RopeArgs& args);

}  // namespace lathe::kernels
