// What the bodies of attention_sinks read and write.
#pragma once

#include "core/device.h"
#include "core/dtype.h"
#include "kernels/arguments/head_rows.h"
#include "kernels/simd/isa.h"

namespace lathe::kernels {

struct AttentionSinksArgs {
  DType dtype;  // f32 | bf16 | f16, of out, x and sinks
  HeadRows out, x;
  float* lse_out;  // [heads][T], lse_out_head apart; null: not wanted
  int64_t lse_out_head;
  const float* lse;
  int64_t lse_head;
  const void* sinks;
  int64_t heads, head_dim, columns;  // columns = heads · head_dim
  int64_t row_begin, row_end;        // tokens
};

struct AttentionSinksBackwardArgs {
  DType dtype;  // of grad_out, out and sinks
  float *dots, *shares;
  HeadRows grad_out, out;
  const float* lse;  // the forward's lse_out
  int64_t lse_head;
  const void* sinks;
  int64_t heads, head_dim, columns;
  int64_t row_begin, row_end;
};

// cpu.cpp: tokens [row_begin, row_end).
template <Isa>
void attention_sinks_rows(AttentionSinksArgs args);
template <Isa>
void attention_sinks_backward_rows(AttentionSinksBackwardArgs args);

// cuda.cu: all tokens, in the device's memory.
template <DeviceKind>
void attention_sinks_rows(const AttentionSinksArgs& args);
template <DeviceKind>
void attention_sinks_backward_rows(const AttentionSinksBackwardArgs& args);

}  // namespace lathe::kernels
