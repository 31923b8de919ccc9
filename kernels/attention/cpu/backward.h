// The pieces of attention_backward that run apart. Plain data, read by the bodies of every instruction set.
#pragma once

#include <cstdint>

#include "kernels/attention/params.h"
#include "kernels/attention/cpu/tile.h"

namespace lathe::kernels {

struct BackwardCall {
  HeadRows grad_q, grad_k, grad_v, grad_out, q, k, v, out;
  const float* lse;  // [heads][T], lse_head apart
  int64_t lse_head;
  float* dots;  // [heads][tokens]: rowsum(grad_out ∘ out), filled on the way
  int64_t tokens, heads;
  int64_t head_dim, padded_dim, group, window;
  float scale, softcap;
  DType dtype;  // f32 | bf16 | f16
};

struct BackwardTask {
  const BackwardCall* call;
  int64_t start, length;  // the sequence's tokens
  int64_t kv_head;
  int64_t begin, end;  // key gradients: chunks of keys; query gradients: tiles of 64 tokens
  float* scratch;      // backward_scratch_floats
};

constexpr int64_t backward_scratch_floats(int64_t length, int64_t padded_dim) {
  const int64_t padded_length = (length + 63) / 64 * 64;
  return 4 * 64                             // row pointers, lse, dots
         + 5 * 64 * padded_dim              // a tile's queries and gradients
         + 4 * 64 * 64                      // products, probabilities, score gradients
         + 5 * padded_length * padded_dim;  // the sequence's keys, values and their gradients
}

}  // namespace lathe::kernels

// All gradients of one sequence and kv head in one pass …
LATHE_CPU_BODY(attention_gradients, const BackwardTask&)
// … or, where there are too few of those for the threads, apart, which computes the scores twice and gives the same
// bits: the dots, then grad_k and grad_v of the chunks [begin, end) and grad_q of the tiles [begin, end).
LATHE_CPU_BODY(attention_row_dots, const BackwardTask&)
LATHE_CPU_BODY(attention_key_gradients, const BackwardTask&)
LATHE_CPU_BODY(attention_query_gradients, const BackwardTask&)
