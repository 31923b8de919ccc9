// Paged attention in plain loops over f64: the specification of the CPU body, and the body for f64 itself.
#pragma once

#include "kernels/paged_attention/paged_attention.h"

namespace lathe::kernels::reference {

void paged_attention(const Tensor& out, const Tensor& q, const Tensor& k_pages, const Tensor& v_pages,
                     const Tensor& block_table, const Tensor& cu_seqlens, const Tensor& context_lens,
                     const AttentionParams& params);

}  // namespace lathe::kernels::reference
