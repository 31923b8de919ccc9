// Attention in plain loops over f64: the specification of the CPU bodies, and the body for f64 itself.
#pragma once

#include "core/tensor.h"
#include "core/thread_pool.h"
#include "kernels/attention/attention.h"

namespace lathe::kernels::reference {

// One query row at `position` of its sequence over keys 0 … position, found through `key` and `value`:
// out [head_dim] is written and the row's lse returned. `scores` is room for position + 1 numbers.
double attend_row(const double* q, int64_t position, int64_t head_dim, const AttentionParams& params,
                  FunctionRef<const double*(int64_t)> key, FunctionRef<const double*(int64_t)> value, double* scores,
                  double* out);

void attention_forward(const AttentionForward& call);
void attention_backward(const AttentionBackward& call);

}  // namespace lathe::kernels::reference
