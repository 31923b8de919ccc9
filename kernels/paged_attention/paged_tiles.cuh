// A batch's sequences as attention's tiles (kernels/attention/cuda/attend.cuh). Grids are (·, kv heads, sequences).
#pragma once

#include "kernels/attention/cuda/attend.cuh"
#include "kernels/paged_attention/cuda.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

// log2 of a page size.
inline int page_shift_of(int64_t page_size) {
  int shift = 0;
  while ((int64_t{1} << shift) < page_size) ++shift;
  return shift;
}

// All rows of a sequence for the block's kv head.
__device__ __forceinline__ flash::Tile tile_of_sequence(const PagedSteps& batch, int group) {
  const int sequence = static_cast<int>(blockIdx.z);
  const int begin = batch.bounds[sequence], tokens = batch.bounds[sequence + 1] - begin;
  return {.first_token = begin,
          .first_position = batch.contexts[sequence] - tokens,
          .first_row = 0,
          .rows = tokens * group,
          .kv_head = static_cast<int>(blockIdx.y)};
}

// Makes all rows of a sequence the block's `rows` of them; false: there are none for it.
__device__ __forceinline__ bool take_rows(flash::Tile& tile, int rows) {
  const int tiles = (tile.rows + rows - 1) / rows;
  const int index = tiles - 1 - static_cast<int>(blockIdx.x);  // the last tiles see the most keys and come first
  if (index < 0) return false;
  tile.first_row = index * rows;
  tile.rows = tile.rows - tile.first_row < rows ? tile.rows - tile.first_row : rows;
  return true;
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
