// What the bodies of lora_dropout.h read and write: on devices, bf16 and f16, with rows at multiples of 16 bytes.
#pragma once

#include "core/device.h"
#include "core/dtype.h"
#include "kernels/arguments/matrix.h"
#include "kernels/dropout/mask.h"

namespace lathe::kernels {

// Ranks are taken in units of so many, of one term each; what a launch holds of them: of one term, and of several.
inline constexpr int64_t rank_unit = 16;
inline constexpr int units_of_one_term = 4, units_of_terms = 6, most_dropped_terms = 3;

struct DroppedTermArgs {
  ConstMatrix factor;  // A [r, K], or dt [T, r]
  Matrix out;          // t [T, r], or f32 grad_a [r, K]
  int64_t rank;
  uint32_t stream;  // beside the mask's
};

struct DroppedProductArgs {
  DType dtype;
  ConstMatrix x;  // [T, K]
  int64_t columns;
  const int32_t *cu_seqlens, *sample_numbers;  // on the host
  int64_t sequences;
  DropoutMask mask;  // of stream 0
  float scale;       // of t
  DroppedTermArgs terms[most_dropped_terms];
  int count;  // with units_of_one_term between them if it is one, else units_of_terms
};

// products.cu
template <DeviceKind>
void dropped_shrink(const DroppedProductArgs& args);
template <DeviceKind>
void dropped_factor_gradients(const DroppedProductArgs& args);

struct DroppedExpandArgs {
  DType dtype;
  Matrix grad_x;      // [T, K]
  ConstMatrix dt, a;  // [T, r], [r, K]
  int64_t columns, rank;
  const int32_t *cu_seqlens, *sample_numbers;  // on the host
  int64_t sequences;
  DropoutMask mask;
};

// input_gradient.cu
template <DeviceKind>
void dropped_input_gradient(const DroppedExpandArgs& args);

}  // namespace lathe::kernels
