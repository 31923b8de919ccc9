// What the bodies of causal_conv read and write.
#pragma once

#include "core/device.h"
#include "kernels/arguments/matrix.h"
#include "kernels/short_conv/taps.h"
#include "kernels/simd/isa.h"

namespace lathe::kernels {

// What every body is told.
struct CausalConv : ConvTaps {
  ConstMatrix x;
  const int32_t* cu_seqlens;  // on the host; of a step where its body runs
  int64_t sequences;
};

// The last rows before a step's. Strides in elements.
struct ConvStates {
  void* data;
  int64_t slot, row;
  const int32_t *slots, *contexts;  // of each sequence
};

struct CausalConvForwardArgs : CausalConv {
  Matrix out;
  ConvStates states;  // of whole sequences contexts is null, and nothing is there
  int64_t rows;
  int64_t column_begin, column_end;
};

struct CausalConvBackwardArgs : CausalConv {
  Matrix grad_x;
  float *grad_weight, *grad_bias;  // null: not wanted
  ConstMatrix grad_out;
  int64_t column_begin, column_end;
};

// cpu.cpp: columns [column_begin, column_end).
template <Isa>
void causal_conv_forward_columns(CausalConvForwardArgs args);
template <Isa>
void causal_conv_backward_columns(CausalConvBackwardArgs args);

// cuda.cu: all columns.
template <DeviceKind>
void causal_conv_forward_columns(const CausalConvForwardArgs& args);
template <DeviceKind>
void causal_conv_backward_columns(const CausalConvBackwardArgs& args);

}  // namespace lathe::kernels
