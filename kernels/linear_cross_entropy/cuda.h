// The CUDA bodies of linear_cross_entropy.h between the matrix products. Pointers are device memory; strides are in
// elements, between rows.
#pragma once

#include <cstdint>

#include "core/device.h"
#include "kernels/linear_cross_entropy/call.h"

namespace lathe::kernels {

// What travels as a kernel argument (at most 4 KiB): the operation copies nothing to the device and waits for nothing.
inline constexpr int cross_entropy_rows_per_launch = 256;
struct RowNumbers {
  int32_t at[cross_entropy_rows_per_launch];
};

// Row r belongs to token tokens[r], and its label is labels[r]. Where both are stored, a launch may have any number of
// rows. Gradients are f32 or bf16.
struct CrossEntropyRowsCuda : CrossEntropyCall<float> {
  const float* statistics;  // [rows, groups, 2], left by the product (ColumnStatistics); null: the logits are read
  int64_t groups;
  RowNumbers tokens, labels;
  const int32_t *stored_tokens, *stored_labels;  // null: those above
  int64_t rows;
};

struct TokenLogprobsCuda {
  const float* logits;
  int64_t stride, columns;
  const int32_t* targets;  // null: those of `listed`
  RowNumbers listed;
  float* logprobs;  // NaN for a target outside [0, columns)
  int64_t rows;
};

// packed [rows, row_bytes] ← the rows of matrix named by tokens, or the other way round.
struct MoveRowsCuda {
  void* matrix;
  int64_t matrix_stride_bytes;
  void* packed;
  int64_t packed_stride_bytes;
  int64_t row_bytes;
  RowNumbers tokens;
  const int32_t* stored_tokens;  // as above
  int64_t rows;
  bool gather;
};

template <DeviceKind>
void cross_entropy_rows(const CrossEntropyRowsCuda& args);
template <DeviceKind>
void token_logprob_rows(const TokenLogprobsCuda& args);
template <DeviceKind>
void move_token_rows(const MoveRowsCuda& args);

}  // namespace lathe::kernels
