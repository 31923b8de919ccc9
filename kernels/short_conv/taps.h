// The weights of a convolution over a sequence's tokens that takes each column by itself (short_conv.h,
// kernels/causal_conv/causal_conv.h).
#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace lathe {
class Tensor;
}

namespace lathe::kernels {

// How many tokens one may see.
inline constexpr int most_conv_taps = 8;

// What bodies are told of them.
struct ConvTaps {
  DType dtype;         // f32 | bf16 | f16
  const void* weight;  // [columns, taps]
  const void* bias;    // null: none
  int64_t columns;
  int taps;
};

// The checks of a public function: `argument` x [T, parts · C] of a floating dtype, whose rows are contiguous, weight
// [C, taps] and bias [C] or undefined of its dtype; and a tensor of rows like x's.
void expect_conv(const char* operation, const char* argument, const Tensor& x, int64_t parts, const Tensor& weight,
                 const Tensor& bias);
void expect_conv_rows(const char* operation, const char* argument, const Tensor& rows, int64_t columns,
                      const Tensor& x);
// Of a weight's gradient, f32 (f64), where it is wanted.
void expect_conv_gradient(const char* operation, const char* argument, const Tensor& gradient, const Tensor& of);

ConvTaps conv_taps_of(const Tensor& weight, const Tensor& bias);

}  // namespace lathe::kernels
