// The tiles of a product, by one number.
#pragma once

#include "kernels/cuda/launch.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

// Where tile `index` of the product begins, in the order in which blocks take them. Blocks that run at the same time
// should share rows and columns, so that the second-level cache holds what they read: tiles are walked down groups of
// eight rows of tiles. Walking along whole rows, a vocabulary of 128k columns would stream its weight from memory once
// for each row of tiles.
template <class Shape>
__device__ __forceinline__ void find_tile(unsigned index, int64_t m, int64_t n, int64_t& first_row,
                                          int64_t& first_column) {
  constexpr unsigned group = 8;
  const unsigned tiles_m = static_cast<unsigned>((m + Shape::m - 1) / Shape::m),
                 tiles_n = static_cast<unsigned>((n + Shape::n - 1) / Shape::n);
  const unsigned above = index / (group * tiles_n) * group, within = index % (group * tiles_n);
  const unsigned height = tiles_m - above < group ? tiles_m - above : group;
  first_row = int64_t{above + within % height} * Shape::m;
  first_column = int64_t{within / height} * Shape::n;
}

template <class Shape>
inline int64_t count_tiles(int64_t m, int64_t n) {
  return (m + Shape::m - 1) / Shape::m * ((n + Shape::n - 1) / Shape::n);
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
