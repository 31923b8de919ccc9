// What becomes of q, k and v between their products and attention over pages: RMS norms of q's and k's heads, rotation
// by position, and the append of k and v. On a device one launch where that has a body; the bits are those of
// rms_norm_forward, rope and kv_append one after another.
#pragma once

#include "core/tensor.h"
#include "kernels/paged_attention/paged_attention.h"

namespace lathe::kernels {

// q [T, heads, D]; k, v [T, kv_heads, D], of one dtype, f32 | bf16 | f16, each contiguous, on the pages' device: a
// batch's new tokens. q is changed in place; what k holds afterwards is not said.
struct NewHeads {
  Tensor q, k, v;
  Tensor q_norm = {}, k_norm = {};  // [D] of that dtype; undefined where heads are not normed
  float eps = 0;
  // i32 [T] and f32 [max_positions, R / 2], as rope takes them: the first R ≤ D dimensions turn. Undefined tables:
  // nothing turns.
  Tensor positions = {}, cos_table = {}, sin_table = {};
  // The tables' row at which those of q begin, behind those of k, of which there are as many; 0: they have the same.
  int64_t query_row = 0;
};
void rope_append(const KvPages& pages, const NewHeads& heads, const PagedBatch& batch);

}  // namespace lathe::kernels
