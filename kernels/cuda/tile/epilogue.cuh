// Accumulators on their way out: through shared memory, where a thread finds neighbours of a row beside each other, so
// that global memory is accessed 16 bytes at a time.
#pragma once

#include "kernels/cuda/tile/fragment.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

// How often a bank is asked while a warp stores pairs of neighbours, as a fragment has them.
template <class Tile>
inline constexpr int pair_passes = bank_passes(2 * static_cast<int>(sizeof(typename Tile::T)), [](int lane) {
  return Tile::offset(fragment_row(lane, 0), fragment_column(lane, 0)) * static_cast<int>(sizeof(typename Tile::T));
});

// A warp's sums, rounded to the tile's type, into the tile from (first_row, first_column) on.
template <class Tile, int rows, int columns>
__device__ __forceinline__ void store_fragments(const Accumulator<rows, columns>& sums, Tile& tile, int first_row,
                                                int first_column) {
  using T = typename Tile::T;
  static_assert(pair_passes<Tile> <= (sizeof(T) == 4 && Tile::Layout::padding_bytes == 16 ? 2 : 1),
                "only rows of f32 that lie apart as their readers want them take two passes");
  const int lane = static_cast<int>(threadIdx.x % 32);
  const TilePlace<Tile> place(first_row + fragment_row(lane, 0), first_column + fragment_column(lane, 0));
  LATHE_UNROLL
  for (int i = 0; i < sums.m; ++i) {
    LATHE_UNROLL
    for (int j = 0; j < sums.n; ++j) {
      LATHE_UNROLL
      for (int h = 0; h < 2; ++h)
        store_vector(tile.elements + place.at(16 * i + 8 * h, 8 * j),
                     pack_pair(sums.at[i][j][2 * h], sums.at[i][j][2 * h + 1], T{}));
    }
  }
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
