// Causal attention over packed sequences (kernels/attention/attention.h). Saves q, k, v, out and the
// log-sum-exp.
#pragma once

#include "autograd/sequence_layout.h"
#include "autograd/variable.h"
#include "kernels/attention/attention.h"

namespace lathe::autograd {

// q [T, heads, D]; k, v [T, kv_heads, D] → [T, heads, D]. sinks [heads], where there are any: each head's logit beside
// those of its keys (kernels/attention_sinks/attention_sinks.h).
Variable attention(const Variable& q, const Variable& k, const Variable& v, const SequenceLayout& layout,
                   const kernels::AttentionParams& params, const Variable& sinks = {});

}  // namespace lathe::autograd
