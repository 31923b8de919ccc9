// The operations on pages for tensors that are not on the CPU. The shapes have been checked.
#pragma once

#include "kernels/paged_attention/cuda.h"
#include "kernels/paged_attention/paged_attention.h"

namespace lathe::kernels::device {

// What bodies are told of a batch: where its numbers lie for them, on any device.
PagedSteps steps_of(const PagedBatch& batch);

void paged_attention(const Tensor& out, const Tensor& q, const KvPages& pages, const PagedBatch& batch,
                     const AttentionParams& params, const Tensor& lse);
void kv_append(const KvPages& pages, const Tensor& k, const Tensor& v, const PagedBatch& batch);
KvAppendCuda kv_append_args(const KvPages& pages, const Tensor& k, const Tensor& v, const PagedBatch& batch);
void kv_copy_pages(const KvPages& pages, const Tensor& from, const Tensor& to);

}  // namespace lathe::kernels::device
