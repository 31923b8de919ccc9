// What a warp holds of matrices in its registers, as mma.sync m16n8k16 wants it (16-bit operands, sums in f32), and how
// operands come from shared tiles. With g = lane / 4 and t = lane % 4 a lane has
//   of an accumulator, 16 × 8   elements 0, 1 at row g, columns 2t and 2t + 1, and 2, 3 at row g + 8
//   of A, 16 × 16               (g, 2t), (g + 8, 2t), (g, 2t + 8), (g + 8, 2t + 8), each with its right neighbour
//   of B, 16 × 8                (2t, g), (2t + 8, g), each with the neighbour below
// so that two accumulators side by side, rounded, are an A.
#pragma once

#include "kernels/cuda/ptx.h"
#include "kernels/cuda/tile/shared_tile.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

template <class T>
struct AFragment {
  uint32_t registers[4];
};
template <class T>
struct BFragment {
  uint32_t registers[2];
};

// Sums of a warp, rows × columns: at[i][j] is the fragment of rows 16 i … and columns 8 j ….
template <int rows_, int columns_>
struct Accumulator {
  static constexpr int rows = rows_, columns = columns_, m = rows / 16, n = columns / 8;
  static_assert(rows % 16 == 0 && columns % 8 == 0);
  float at[m][n][4] = {};
};

// Where a lane's element e of an accumulator fragment stands.
__host__ __device__ constexpr int fragment_row(int lane, int e) { return lane / 4 + e / 2 * 8; }
__host__ __device__ constexpr int fragment_column(int lane, int e) { return lane % 4 * 2 + e % 2; }

// Something for each row that a lane has elements of: at[i][h] for row 16 i + 8 h + lane / 4.
template <int rows_, class Value = float>
struct RowValues {
  static constexpr int rows = rows_, m = rows / 16;
  Value at[m][2];
};

// Calls body(i, j, e, c.at[i][j][e]) for every element of a lane.
template <int rows, int columns, class Body>
__device__ __forceinline__ void for_each(Accumulator<rows, columns>& c, Body body) {
  LATHE_UNROLL
  for (int i = 0; i < c.m; ++i) {
    LATHE_UNROLL
    for (int j = 0; j < c.n; ++j) {
      LATHE_UNROLL
      for (int e = 0; e < 4; ++e) body(i, j, e, c.at[i][j][e]);
    }
  }
}

// Calls body(i, h, values.at[i][h]) for every row of a lane.
template <int rows, class Value, class Body>
__device__ __forceinline__ void for_each_row(RowValues<rows, Value>& values, Body body) {
  LATHE_UNROLL
  for (int i = 0; i < values.m; ++i) {
    LATHE_UNROLL
    for (int h = 0; h < 2; ++h) body(i, h, values.at[i][h]);
  }
}

// Two neighbours rounded to T, the first in the low half.
__device__ __forceinline__ uint32_t pack_pair(float low, float high, bf16_t) {
  const auto pair = __floats2bfloat162_rn(low, high);
  uint32_t bits;
  __builtin_memcpy(&bits, &pair, sizeof bits);
  return bits;
}
__device__ __forceinline__ uint32_t pack_pair(float low, float high, f16_t) {
  const auto pair = __floats2half2_rn(low, high);
  uint32_t bits;
  __builtin_memcpy(&bits, &pair, sizeof bits);
  return bits;
}
__device__ __forceinline__ float2 pack_pair(float low, float high, float) { return {low, high}; }

// c += a · b
__device__ __forceinline__ void mma(float (&c)[4], const AFragment<bf16_t>& a, const BFragment<bf16_t>& b) {
  mma_m16n8k16_bf16(c, a.registers, b.registers);
}
__device__ __forceinline__ void mma(float (&c)[4], const AFragment<f16_t>& a, const BFragment<f16_t>& b) {
  mma_m16n8k16_f16(c, a.registers, b.registers);
}

// ---- from shared tiles, by ldmatrix ----

// The vector that a lane points ldmatrix at, for an operand whose rows (columns of the product for B) begin at `first`.
// A: rows 0–7 and 8–15 of the first eight k, then of the second.
template <class Tile, Major major>
__host__ __device__ constexpr TilePlace<Tile> a_place(int lane, int first) {
  return major == Major::k ? TilePlace<Tile>(first + lane % 16, lane / 16 * 8)
                           : TilePlace<Tile>(lane / 16 * 8 + lane % 8, first + lane / 8 % 2 * 8);
}

// B comes in two fragments at a time: k 0–7 and 8–15 of eight columns, then of the next eight columns, or of the next
// sixteen k where a warp has no more columns.
enum class BPair { columns, k };
template <class Tile, Major major, BPair pair>
__host__ __device__ constexpr TilePlace<Tile> b_place(int lane, int first) {
  if constexpr (pair == BPair::columns) {
    return major == Major::k ? TilePlace<Tile>(first + lane / 16 * 8 + lane % 8, lane / 8 % 2 * 8)
                             : TilePlace<Tile>(lane % 16, first + lane / 16 * 8);
  } else {
    return major == Major::k ? TilePlace<Tile>(first + lane % 8, lane / 8 * 8) : TilePlace<Tile>(lane, first);
  }
}

// Whether eight lanes, which ldmatrix serves together, meet no bank twice, wherever in the tile the operand's fragments
// of rows × columns elements of the tile begin. Fragments of a padded tile are all alike.
template <class Tile, class Place>
constexpr bool ldmatrix_conflict_free(int rows, int columns, const Place& place) {
  for (int row = 0; row + rows <= (Tile::Layout::swizzled ? Tile::rows : rows); row += rows) {
    for (int column = 0; column + columns <= (Tile::Layout::swizzled ? Tile::columns : columns); column += columns) {
      if (bank_passes(16, [&](int lane) { return place(lane).at(row, column) * 2; }) != 1) return false;
    }
  }
  return true;
}

// Fragments of A, 16 rows × 16 k, of a warp whose rows begin at `first_row` of the operand in a tile. load() takes the
// one that begins `row` rows after that, a multiple of 16, and at `k`, another.
template <class Tile, Major major>
class AReader {
 public:
  using T = typename Tile::T;
  static_assert(sizeof(T) == 2 &&
                ldmatrix_conflict_free<Tile>(16, 16, [](int lane) { return a_place<Tile, major>(lane, 0); }));

  __device__ __forceinline__ explicit AReader(int first_row)
      : place_(a_place<Tile, major>(static_cast<int>(threadIdx.x % 32), first_row)) {}
  __device__ __forceinline__ void load(AFragment<T>& a, const Tile& tile, int row, int k) const {
    if constexpr (major == Major::k) {
      ldmatrix_x4(a.registers, tile.elements + place_.at(row, k));
    } else {
      ldmatrix_x4_transposed(a.registers, tile.elements + place_.at(k, row));
    }
  }

 private:
  TilePlace<Tile> place_;
};

// Two neighbouring fragments of B, 16 k × 8 columns each, of a warp whose columns begin at `first_column`; load()
// counts from there and from k = 0.
template <class Tile, Major major, BPair pair = BPair::columns>
class BReader {
 public:
  using T = typename Tile::T;
  static constexpr int pair_k = pair == BPair::k ? 32 : 16, pair_columns = 256 / pair_k;
  static_assert(sizeof(T) == 2 && ldmatrix_conflict_free<Tile>(major == Major::k ? pair_columns : pair_k,
                                                               major == Major::k ? pair_k : pair_columns, [](int lane) {
                                                                 return b_place<Tile, major, pair>(lane, 0);
                                                               }));

  __device__ __forceinline__ explicit BReader(int first_column)
      : place_(b_place<Tile, major, pair>(static_cast<int>(threadIdx.x % 32), first_column)) {}
  __device__ __forceinline__ void load(BFragment<T>& first, BFragment<T>& second, const Tile& tile, int column,
                                       int k) const {
    uint32_t both[4];
    if constexpr (major == Major::k) {
      ldmatrix_x4(both, tile.elements + place_.at(column, k));
    } else {
      ldmatrix_x4_transposed(both, tile.elements + place_.at(k, column));
    }
    first = {{both[0], both[1]}};
    second = {{both[2], both[3]}};
  }

 private:
  TilePlace<Tile> place_;
};

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
