// The CUDA body of rope_append.h. Pointers are device memory, but for positions.
#pragma once

#include "kernels/arguments/head_rows.h"
#include "kernels/arguments/indices.h"
#include "kernels/paged_attention/cuda.h"

namespace lathe::kernels {

// Rows of heads, of pages, of norms and of tables begin at multiples of 16 bytes; head_dim is a multiple of 16 and at
// most 256, and so are the dimensions that turn, or there are none.
struct RopeAppendCuda {
  DType dtype;
  HeadRows q, k, v;
  const void *q_norm, *k_norm;  // null: none
  float eps;
  Indices positions;  // of the batch's tokens
  const float *cos_table, *sin_table;
  int64_t cos_row, sin_row, table_rows;
  int64_t query_row;  // the row of the table's that turns a query at position 0
  int64_t turned;     // 0: none
  int64_t heads;
  KvAppendCuda append;  // k and v as they are stored; its k and v are not used
};

template <DeviceKind>
void rope_append_rows(const RopeAppendCuda& args);

}  // namespace lathe::kernels
