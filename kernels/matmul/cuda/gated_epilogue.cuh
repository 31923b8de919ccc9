// What a block does with its sums of gate and up: their activated product goes out alone.
#pragma once

#include <type_traits>

#include "kernels/gated/activation.cuh"
#include "kernels/matmul/cuda/epilogue.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

// out [m, n].
template <class T>
struct GatedEpilogue {
  int64_t m, n;
  T* out;
  int64_t stride;
};

// The same, and what gate and up are by themselves, which a gradient wants.
template <class T>
struct KeptGatedEpilogue : GatedEpilogue<T> {
  T *gate, *up;  // [m, n], rows as far apart as out's; null: not wanted
};

template <class T>
inline GatedEpilogue<T> gated_epilogue(int64_t m, int64_t n, const ProductMatrix& out) {
  return {m, n, static_cast<T*>(out.data), out.stride};
}

// [n] each; null: none.
template <class T>
struct GatedBias {
  const T *gate = nullptr, *up = nullptr;
};

// A block's sums, gate's in the first half of a row and up's of the same columns in the second.
template <int rows, int columns>
using GatedSums = SharedTile<float, rows, 2 * columns, Padded<32>>;

// The bits of both products rounded to T, and then of their own kernel, of eight neighbours of a row from `within` on.
template <class T, class Gate, int rows, int columns, class Destination>
__device__ __forceinline__ void finish_gated_eight(const Destination& e, const GatedSums<rows, columns>& sums, int row,
                                                   int within, int64_t first_row, int64_t first_column,
                                                   const GatedBias<T>& bias) {
  using Tile = GatedSums<rows, columns>;
  constexpr int width = 8;
  const int64_t column = first_column + within;
  if (row >= rows || first_row + row >= e.m || column >= e.n) return;
  const int count = e.n - column < width ? static_cast<int>(e.n - column) : width;
  float values[width], ups[width];
  LATHE_UNROLL
  for (int i = 0; i < width; ++i) {
    values[i] = sums.elements[Tile::offset(row, within + i)];
    ups[i] = sums.elements[Tile::offset(row, columns + within + i)];
  }
  if (bias.gate != nullptr) add_neighbours(values, bias.gate + column, count);
  if (bias.up != nullptr) add_neighbours(ups, bias.up + column, count);
  const int64_t at = (first_row + row) * e.stride + column;
  if constexpr (std::is_same_v<Destination, KeptGatedEpilogue<T>>) {
    if (e.gate != nullptr) {
      store_neighbours(e.gate + at, values, count);
      store_neighbours(e.up + at, ups, count);
    }
  }
  LATHE_UNROLL
  for (int i = 0; i < width; ++i)
    values[i] = gated_product<T, Gate>(to_float(from_float<T>(values[i])), to_float(from_float<T>(ups[i])));
  store_neighbours(e.out + at, values, count);
}

// Of all of them, a thread's eight. All sums are there.
template <class T, class Gate, int rows, int columns>
__device__ __forceinline__ void finish_gated(const GatedEpilogue<T>& e, const GatedSums<rows, columns>& sums,
                                             int64_t first_row, int64_t first_column, const GatedBias<T>& bias = {}) {
  constexpr int eights = columns / 8;
  finish_gated_eight<T, Gate, rows, columns>(e, sums, static_cast<int>(threadIdx.x) / eights,
                                             static_cast<int>(threadIdx.x) % eights * 8, first_row, first_column, bias);
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
