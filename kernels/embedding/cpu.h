// What the CPU body of embedding_backward reads and writes.
#pragma once

#include <cstdint>

#include "core/dtype.h"
#include "kernels/simd/dispatch.h"

namespace lathe::kernels {

// grad_weight row `id` += the sums over sequences, for runs [begin, end). Run r is the tokens order[runs[r]] up to
// order[runs[r + 1] − 1]: all tokens with one id, ascending. sequence_of[t] is the sequence that token t belongs to.
struct EmbeddingBackwardArgs {
  DType dtype;  // of grad_out: f32 | bf16
  float* grad_weight;
  const void* grad_out;
  const int32_t* ids;
  const int32_t* order;
  const int32_t* sequence_of;
  const int64_t* runs;
  int64_t grad_weight_stride, grad_out_stride;
  int64_t columns;
  int64_t begin, end;
};

}  // namespace lathe::kernels

LATHE_CPU_BODY(embedding_backward_runs, EmbeddingBackwardArgs)
