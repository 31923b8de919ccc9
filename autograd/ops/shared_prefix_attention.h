// Causal attention over packed sequences of which one may begin with the first tokens of the one before it. These
// tokens have one row: what a layer makes of a token depends on the tokens before it alone, so that everything but
// attention need not be computed twice.
#pragma once

#include "autograd/ops/whole_sequences.h"
#include "autograd/variable.h"
#include "kernels/attention/attention.h"

namespace lathe::autograd {

// As attention() of whole sequences, to the bit, for the rows that there are: q [T, heads, D]; k, v [T, kv_heads, D] →
// [T, heads, D]. Inside, shared rows are repeated. In the backward a shared row's gradients of k and v are the sum of
// both sequences', the first one's plus the second's, rounded to their dtype in between.
Variable shared_prefix_attention(const Variable& q, const Variable& k, const Variable& v, const SharedPrefixes& shared,
                                 const kernels::AttentionParams& params, const Variable& sinks = {});

}  // namespace lathe::autograd
