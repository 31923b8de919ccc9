// Rows that lie anywhere in memory, into a tile and, of a warp's sums, back out of one.
#pragma once

#include "kernels/cuda/tile/epilogue.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

// Rows of 96 elements of 16 bits: the end of one and the beginning of the next meet in a bank, in one of three
// accesses.
template <class Tile>
inline constexpr bool rows_meet_no_bank = row_order_passes<Tile> == (Tile::vectors % 8 == 0 ? 1 : 2);

// All `threads` of the block fill a tile: its first `count` ≥ 1 rows with the first `width` elements of the rows found
// through address(row) → const T*, the rest with zeros. By cp.async where the rows in memory are `aligned` to 16 bytes,
// else at once: the caller commits the copies and waits.
template <int threads, class Tile, class Address>
__device__ __forceinline__ void load_rows(Tile& tile, int count, int width, bool aligned, Address address) {
  using T = typename Tile::T;
  constexpr int vector = vector_elements<T>;
  static_assert(rows_meet_no_bank<Tile>);
  const auto each_vector = [&](auto copy) {
// Two at a time spilled the addresses of keys at D = 128, where 192 registers hold sums meanwhile.
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x); i < Tile::rows * Tile::vectors; i += threads) {
      const int row = i / Tile::vectors, column = i % Tile::vectors * vector;
      const int left = row < count ? width - column : 0;
      const int valid = left < 0 ? 0 : left < vector ? left : vector;
      copy(tile.elements + Tile::offset(row, column), address(row < count ? row : 0) + (valid > 0 ? column : 0), valid);
    }
  };
  if (aligned) {
    each_vector([](T* target, const T* source, int valid) {
      cp_async_16(target, source, valid * static_cast<int>(sizeof(T)));
    });
  } else {
    each_vector([](T* target, const T* source, int valid) {
#pragma unroll 1
      for (int j = 0; j < vector; ++j) target[j] = j < valid ? source[j] : from_float<T>(0.0f);
    });
  }
}

// A warp's sums, rounded, through as many rows of a tile from first_row on, which nobody else uses: the first `width`
// columns of the first `count` rows, to rows found through address(row) → T*, whole vectors where those are `aligned`.
template <class Tile, int rows, int columns, class Address>
__device__ __forceinline__ void store_rows(const Accumulator<rows, columns>& sums, Tile& tile, int first_row, int count,
                                           int width, bool aligned, Address address) {
  using T = typename Tile::T;
  constexpr int vector = vector_elements<T>;
  static_assert(Tile::columns == columns && rows_meet_no_bank<Tile>);
  __syncwarp();  // the warp is done with what was there
  store_fragments(sums, tile, first_row, 0);
  __syncwarp();  // and all of it is there
  for (int i = static_cast<int>(threadIdx.x % 32); i < count * Tile::vectors; i += 32) {
    const int row = i / Tile::vectors, column = i % Tile::vectors * vector;
    const int left = width - column;
    if (left <= 0) continue;
    T* target = address(row) + column;
    const T* source = tile.elements + Tile::offset(first_row + row, column);
    if (aligned && left >= vector) {
      store_vector<uint4>(target, load_vector<uint4>(source));
    } else {
      for (int j = 0; j < (left < vector ? left : vector); ++j) target[j] = source[j];
    }
  }
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
