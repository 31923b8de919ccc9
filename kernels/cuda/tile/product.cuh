// The two products of attention, by one warp: a shared tile times a transposed one, and what became of its sums times a
// tile. On the tensor cores for bf16 and f16, in chains of fma for f32, whose accumulators lie as mma.sync leaves them
// all the same.
//
// An element's bits depend on its row and column alone: f32 in ascending order, 16 bits in steps of 16 along the sum.
// How many rows and columns a warp computes beside it changes nothing.
#pragma once

#include "kernels/cuda/tile/epilogue.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

// Whether no read of an f32 operand meets a bank twice: of multiply_transposed, four neighbours in each lane's row of
// the left and of the right one; of multiply_columns, an element of each lane's row, and two neighbours of one row.
template <class Tile>
inline constexpr bool fma_conflict_free =
    bank_passes(16, [](int lane) { return Tile::offset(fragment_row(lane, 0), 0) * 4; }) == 1 &&
    bank_passes(16, [](int lane) { return Tile::offset(fragment_column(lane, 0), 0) * 4; }) == 1 &&
    bank_passes(4, [](int lane) { return Tile::offset(fragment_row(lane, 0), 0) * 4; }) == 1 &&
    bank_passes(8, [](int lane) { return Tile::offset(0, fragment_column(lane, 0)) * 4; }) == 1;

// c += left · rightᵀ over columns [0, k) of both, rounded up to 16 (f32: 4): zeros lie after k. The warp's rows of
// `left` begin at first_row.
template <class Left, class Right, int rows, int columns>
__device__ __forceinline__ void multiply_transposed(Accumulator<rows, columns>& c, const Left& left, int first_row,
                                                    const Right& right, int k) {
  using T = typename Left::T;
  static_assert(Left::columns == Right::columns && Right::rows == columns && Left::rows % rows == 0);
  if constexpr (sizeof(T) == 2) {
    const AReader<Left, Major::k> a_reader(first_row);
    const BReader<Right, Major::k> b_reader(0);
#pragma unroll 2  // all of it misses the instruction cache and builds for minutes
    for (int d = 0; d < k; d += 16) {
      AFragment<T> a[c.m];
      LATHE_UNROLL
      for (int i = 0; i < c.m; ++i) a_reader.load(a[i], left, 16 * i, d);
      LATHE_UNROLL
      for (int j = 0; j < c.n; j += 2) {
        BFragment<T> b[2];
        b_reader.load(b[0], b[1], right, 8 * j, d);
        LATHE_UNROLL
        for (int i = 0; i < c.m; ++i) {
          mma(c.at[i][j], a[i], b[0]);
          mma(c.at[i][j + 1], a[i], b[1]);
        }
      }
    }
  } else {
    static_assert(fma_conflict_free<Left> && fma_conflict_free<Right>);
    const int lane = static_cast<int>(threadIdx.x % 32);
    const float* left_row = left.elements + Left::offset(first_row + fragment_row(lane, 0), 0);
    const float* right_row = right.elements + Right::offset(fragment_column(lane, 0), 0);
    for (int d = 0; d < k; d += 4) {
      float4 a[c.m][2];
      LATHE_UNROLL
      for (int i = 0; i < c.m; ++i) {
        a[i][0] = load_vector<float4>(left_row + i * 16 * Left::pitch + d);
        a[i][1] = load_vector<float4>(left_row + (i * 16 + 8) * Left::pitch + d);
      }
      LATHE_UNROLL
      for (int j = 0; j < c.n; ++j) {
        const float4 b[2] = {load_vector<float4>(right_row + j * 8 * Right::pitch + d),
                             load_vector<float4>(right_row + (j * 8 + 1) * Right::pitch + d)};
        LATHE_UNROLL
        for (int i = 0; i < c.m; ++i) {
          LATHE_UNROLL
          for (int e = 0; e < 4; ++e) {
            const float4 x = a[i][e / 2], y = b[e % 2];
            c.at[i][j][e] = fmaf(x.w, y.w, fmaf(x.z, y.z, fmaf(x.y, y.y, fmaf(x.x, y.x, c.at[i][j][e]))));
          }
        }
      }
    }
  }
}

// A warp's sums, rows × k, as the left operand of a product over their columns: rounded to T. The fragments of 16 bits
// are the sums' own places; f32 goes through a tile in shared memory, the warp's own `room` of room_bytes.
template <class T, int rows, int k>
struct LeftOperand {
  static constexpr int room_bytes = 0;
  AFragment<T> at[rows / 16][k / 16];

  __device__ __forceinline__ LeftOperand(const Accumulator<rows, k>& sums, void*) {
    LATHE_UNROLL
    for (int i = 0; i < sums.m; ++i) {
      LATHE_UNROLL
      for (int j = 0; j < sums.n; ++j) {
        LATHE_UNROLL
        for (int h = 0; h < 2; ++h)
          at[i][j / 2].registers[j % 2 * 2 + h] = pack_pair(sums.at[i][j][2 * h], sums.at[i][j][2 * h + 1], T{});
      }
    }
  }
};
template <int rows, int k>
struct LeftOperand<float, rows, k> {
  using Tile = PaddedTile<float, rows, k>;
  static constexpr int room_bytes = sizeof(Tile);
  const Tile& tile;

  __device__ __forceinline__ LeftOperand(const Accumulator<rows, k>& sums, void* room)
      : tile(*static_cast<const Tile*>(room)) {
    __syncwarp();  // the warp is done with what was there
    store_fragments(sums, *static_cast<Tile*>(room), 0, 0);
    __syncwarp();  // and all of it is there
  }
};

// Columns [8 · first, 8 · first + 16) of c += left · columns [column, column + 16) of `right`, over all rows of it.
template <class T, int rows, int k, int columns, class Right>
__device__ __forceinline__ void multiply_columns(Accumulator<rows, columns>& c, int first,
                                                 const LeftOperand<T, rows, k>& left, const Right& right, int column) {
  static_assert(Right::rows == k);
  if constexpr (sizeof(T) == 2) {
    const BReader<Right, Major::mn> b_reader(0);
    LATHE_UNROLL
    for (int step = 0; step < k / 16; ++step) {
      BFragment<T> b[2];
      b_reader.load(b[0], b[1], right, column, 16 * step);
      LATHE_UNROLL
      for (int i = 0; i < c.m; ++i) {
        mma(c.at[i][first], left.at[i][step], b[0]);
        mma(c.at[i][first + 1], left.at[i][step], b[1]);
      }
    }
  } else {
    using Left = typename LeftOperand<T, rows, k>::Tile;
    static_assert(fma_conflict_free<Left> && fma_conflict_free<Right>);
    const int lane = static_cast<int>(threadIdx.x % 32);
    const float* left_row = left.tile.elements + Left::offset(fragment_row(lane, 0), 0);
    const float* right_pair = right.elements + Right::offset(0, column + fragment_column(lane, 0));
#pragma unroll 2
    for (int row = 0; row < k; ++row) {
      const float2 b[2] = {load_vector<float2>(right_pair + row * Right::pitch),
                           load_vector<float2>(right_pair + row * Right::pitch + 8)};
      LATHE_UNROLL
      for (int i = 0; i < c.m; ++i) {
        const float a[2] = {left_row[i * 16 * Left::pitch + row], left_row[(i * 16 + 8) * Left::pitch + row]};
        LATHE_UNROLL
        for (int j = 0; j < 2; ++j) {
          LATHE_UNROLL
          for (int e = 0; e < 4; ++e)
            c.at[i][first + j][e] = fmaf(a[e / 2], e % 2 ? b[j].y : b[j].x, c.at[i][first + j][e]);
        }
      }
    }
  }
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
