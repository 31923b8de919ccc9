// What a product does with its sums: out = scale · sum (+ bias) (+ residual), in that order, rounded once.
#pragma once

#include "kernels/cuda/tile/epilogue.cuh"
#include "kernels/matmul/cuda/product.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

// out [m, n]; T is the operands' dtype, and each matrix is of it or f32.
template <class T>
struct Epilogue {
  int64_t m, n;
  float scale;
  ProductMatrix bias, residual, out;
};

template <class T>
inline Epilogue<T> epilogue_of(const ProductArgs& args) {
  return {args.m, args.n, args.scale, args.bias, args.residual, args.out};
}

// Neighbours in memory as 16-byte vectors.
template <class T, int width>
union Neighbours {
  uint4 vectors[width * sizeof(T) / 16];
  T elements[width];
};

// values[0..count) += the neighbours at `from`.
template <class T, int width>
__device__ __forceinline__ void add_neighbours(float (&values)[width], const T* from, int count) {
  Neighbours<T, width> bits;
  if (count == width && reinterpret_cast<uintptr_t>(from) % 16 == 0) {
    LATHE_UNROLL
    for (int i = 0; i < static_cast<int>(sizeof bits.vectors / 16); ++i)
      bits.vectors[i] = load_vector<uint4>(from + i * (16 / static_cast<int>(sizeof(T))));
  } else {
    LATHE_UNROLL
    for (int i = 0; i < width; ++i) bits.elements[i] = i < count ? from[i] : from_float<T>(0.0f);
  }
  LATHE_UNROLL
  for (int i = 0; i < width; ++i) values[i] += to_float(bits.elements[i]);
}

template <class T, int width>
__device__ __forceinline__ void store_neighbours(T* to, const float (&values)[width], int count) {
  Neighbours<T, width> bits;
  LATHE_UNROLL
  for (int i = 0; i < width; ++i) bits.elements[i] = from_float<T>(values[i]);
  if (count == width && reinterpret_cast<uintptr_t>(to) % 16 == 0) {
    LATHE_UNROLL
    for (int i = 0; i < static_cast<int>(sizeof bits.vectors / 16); ++i)
      store_vector(to + i * (16 / static_cast<int>(sizeof(T))), bits.vectors[i]);
  } else {
    LATHE_UNROLL
    for (int i = 0; i < width; ++i)
      if (i < count) to[i] = bits.elements[i];
  }
}

template <class T, int width>
__device__ __forceinline__ void add_term(float (&values)[width], const ProductMatrix& matrix, int64_t row,
                                         int64_t column, int count) {
  if (matrix.data == nullptr) return;
  const int64_t i = row * matrix.stride + column;
  if (matrix.dtype == DType::f32) {
    add_neighbours(values, static_cast<const float*>(matrix.data) + i, count);
  } else {
    add_neighbours(values, static_cast<const T*>(matrix.data) + i, count);
  }
}

// `width` neighbours of a row of out, from their sums. What lies outside out is left out.
template <class T, int width>
__device__ __forceinline__ void finish(const Epilogue<T>& e, int64_t row, int64_t column, const float (&sums)[width]) {
  if (row >= e.m || column >= e.n) return;
  const int count = e.n - column < width ? static_cast<int>(e.n - column) : width;
  float values[width];
  LATHE_UNROLL
  for (int i = 0; i < width; ++i) values[i] = sums[i] * e.scale;
  add_term<T>(values, e.bias, 0, column, count);
  add_term<T>(values, e.residual, row, column, count);
  const int64_t i = row * e.out.stride + column;
  if (e.out.dtype == DType::f32) {
    store_neighbours(static_cast<float*>(e.out.data) + i, values, count);
  } else {
    store_neighbours(static_cast<T*>(e.out.data) + i, values, count);
  }
}

// How often a bank is asked while a warp reads four of each lane's eight neighbours of a row. A lane's other four lie
// between.
template <class Tile>
inline constexpr int eight_neighbours_passes = bank_passes(16, [](int lane) {
  return Tile::offset(lane / (Tile::columns / 8), lane % (Tile::columns / 8) * 8) * 4;
});

// Of a tile of sums in shared memory the eight neighbours from (row, column) on; the tile begins at (first_row,
// first_column) of out.
template <class T, class Tile>
__device__ __forceinline__ void finish_eight(const Epilogue<T>& e, const Tile& tile, int row, int column,
                                             int64_t first_row, int64_t first_column) {
  static_assert(eight_neighbours_passes<Tile> <= 2);
  const float* from = tile.elements + Tile::offset(row, column);
  const float4 low = load_vector<float4>(from), high = load_vector<float4>(from + 4);
  const float eight[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
  finish(e, first_row + row, first_column + column, eight);
}

// The sums of a block's tile by way of shared memory, where each thread takes eight neighbours of a row: 16-byte
// accesses for whatever is read and written, and one copy of this code where the fragments would need one for each of
// their places (nvcc takes 14 s for all instances, not 62). `memory` is the stages', which nobody reads or writes any
// more when all have come here; the same on return.
template <class Shape, class T>
__device__ __forceinline__ void finish_tile(const Epilogue<T>& e, const typename Shape::Sums& sums, void* memory,
                                            int64_t first_row, int64_t first_column) {
  // Four rows of a fragment's pairs in different banks; two of rows that short.
  using Tile = SharedTile<float, Shape::m, Shape::n, Padded<Shape::n == 8 ? 16 : 32>>;
  static_assert(sizeof(Tile) <= Shape::shared_bytes);
  Tile& tile = *static_cast<Tile*>(memory);
  __syncthreads();  // all are done with the last stage
  store_fragments(sums, tile, Shape::warp_row(), Shape::warp_column());
  __syncthreads();  // the sums are there
#pragma unroll 1
  for (int i = threadIdx.x; i < Shape::m * (Shape::n / 8); i += Shape::threads) {
    const int row = i / (Shape::n / 8), column = i % (Shape::n / 8) * 8;
    if (first_row + row >= e.m) break;
    finish_eight(e, tile, row, column, first_row, first_column);
  }
  __syncthreads();  // and have been read
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
