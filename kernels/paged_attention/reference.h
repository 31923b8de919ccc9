// Paged attention and the append in plain loops: the specification of the other bodies, and the bodies for f64 itself.
#pragma once

#include "kernels/paged_attention/paged_attention.h"

namespace lathe::kernels::reference {

// q and out f64, pages of any dtype.
void paged_attention(const Tensor& out, const Tensor& q, const KvPages& pages, const PagedBatch& batch,
                     const AttentionParams& params, const Tensor& lse);
// k and v f64.
void kv_append(const KvPages& pages, const Tensor& k, const Tensor& v, const PagedBatch& batch);

}  // namespace lathe::kernels::reference
