// What the bodies of short_conv read and write. Rows of bcx hold B, C and x, `columns` of each.
#pragma once

#include "core/device.h"
#include "kernels/arguments/matrix.h"
#include "kernels/paged_attention/cuda.h"
#include "kernels/short_conv/taps.h"
#include "kernels/simd/isa.h"

namespace lathe::kernels {

// What every body is told.
struct ShortConv : ConvTaps {
  ConstMatrix bcx;
};

// p of the tokens of earlier steps, and of this one's. Strides in elements.
struct KeptProducts {
  void* data = nullptr;
  int64_t page = 0, token = 0;
  int64_t page_size = 0;
};

struct ShortConvForwardArgs : ShortConv {
  Matrix out;
  PagedSteps steps;   // of whole sequences `bounds` alone, on the host, and their number
  KeptProducts kept;  // none of whole sequences
  int64_t row_begin, row_end;
};

struct ShortConvBackwardArgs : ShortConv {
  Matrix grad_bcx;
  ConstMatrix grad_out;
  const int32_t* cu_seqlens;  // on the host
  int64_t sequences;
  int64_t row_begin, row_end;
};

struct ShortConvWeightGradArgs : ShortConv {
  float *grad_weight, *grad_bias;  // null: not wanted
  ConstMatrix grad_out;
  const int32_t* cu_seqlens;  // on the host
  int64_t sequences;
  int64_t column_begin, column_end;
};

// cpu.cpp: rows [row_begin, row_end), or columns [column_begin, column_end).
template <Isa>
void short_conv_forward_rows(ShortConvForwardArgs args);
template <Isa>
void short_conv_backward_rows(ShortConvBackwardArgs args);
template <Isa>
void short_conv_weight_grad_columns(ShortConvWeightGradArgs args);

// cuda.cu: all rows or columns, in the device's memory but for what is said to be on the host.
template <DeviceKind>
void short_conv_forward_rows(const ShortConvForwardArgs& args);
template <DeviceKind>
void short_conv_backward_rows(const ShortConvBackwardArgs& args);
template <DeviceKind>
void short_conv_weight_grad_columns(const ShortConvWeightGradArgs& args);

}  // namespace lathe::kernels
