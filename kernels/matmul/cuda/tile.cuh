// The tile loop of every product on the tensor cores (bf16, f16): operands in shared memory in stages, fragments by ldmatrix,
// mma.sync m16n8k16 into f32. A product is its sources (what fills a stage: dense matrices here, quantised weights elsewhere)
// and what it does with the sums (epilogue.cuh).
//
// Every shape of tile adds along k in the same steps of sixteen into one accumulator for each element, and past the end of k
// come zeros: an element has the same bits whatever shape computed it, so the shape may follow the extents and the card.
#pragma once

#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.h"
#include "kernels/cuda/row.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

inline constexpr int tile_k = 64;         // 128 bytes: one pass over the banks
inline constexpr int piece_elements = 8;  // 16 bytes: what cp.async moves, and a row of ldmatrix's 8 × 8 matrices

// Which index of an operand has neighbours in memory, and so in its tile.
enum class Fastest { k, row };

// A tile of `rows_` rows (of the left operand, or columns of the product) × tile_k in shared memory, in lines of the fastest
// index. Pieces of a line change places, by a number that counts passes of 128 bytes over the 32 banks: no access conflicts
// (`conflict_free` proves it), and nothing is padded.
template <int rows_, Fastest fastest_>
struct OperandTile {
  static constexpr int rows = rows_;
  static constexpr Fastest fastest = fastest_;
  static constexpr int elements = rows * tile_k;
  static constexpr int line_elements = fastest == Fastest::k ? tile_k : rows;
  static constexpr int lines = fastest == Fastest::k ? rows : tile_k;
  static constexpr int line_pieces = line_elements / piece_elements;
  static constexpr int swapped = line_pieces < 8 ? line_pieces : 8;  // places are swapped within so many pieces
  static constexpr int lines_in_pass = 8 / swapped;
  static_assert(line_pieces % swapped == 0 && 8 % swapped == 0);

  static __host__ __device__ constexpr int place(int line, int piece) {
    return line * line_elements + (piece ^ (line / lines_in_pass % swapped)) * piece_elements;
  }

  // Eight lanes are served at once. ldmatrix has them at one piece of eight neighbouring lines, a copy into the tile at eight
  // neighbouring pieces in the order of lines: either way the eight places must lie in eight different groups of four banks.
  static __host__ __device__ constexpr bool conflict_free() {
    for (int line = 0; line < lines; line += 8)
      for (int piece = 0; piece < line_pieces; ++piece) {
        unsigned read = 0, written = 0;
        for (int i = 0; i < 8; ++i) {
          const int pieces = line * line_pieces + piece / 8 * 8 + i;
          read |= 1u << place(line + i, piece) / piece_elements % 8;
          written |= 1u << place(pieces / line_pieces, pieces % line_pieces) / piece_elements % 8;
        }
        if (read != 0xffu || written != 0xffu) return false;
      }
    return true;
  }
};

// A block's part of the product and how its warps share it.
template <int m_, int n_, int warp_m_, int warp_n_, int stages_, int blocks_at_once_, Cards cards = Cards::all>
struct TileShape {
  static constexpr int m = m_, n = n_, warp_m = warp_m_, warp_n = warp_n_, stages = stages_;
  static constexpr int warps_along_n = n / warp_n;
  static constexpr int threads = m / warp_m * warps_along_n * 32;
  static constexpr int blocks_at_once = blocks_at_once_;
  static constexpr int stage_elements = (m + n) * tile_k;
  static constexpr int shared_bytes = stages * stage_elements * 2;
  static constexpr int left_fragments = warp_m / 16, right_fragments = warp_n / 8;
  using Resources = BlockResources<threads, blocks_at_once, shared_bytes, cards>;
};

template <class Shape>
struct TileSums {
  float at[Shape::left_fragments][Shape::right_fragments][4] = {};
};

// Where the sums of a thread stand: at[i][j][0..1] in row i·16 and columns j·8 and one more, [2..3] eight rows below.
template <class Shape>
__device__ __forceinline__ int first_row_in_tile() {
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = threadIdx.x % 32;
  return warp / Shape::warps_along_n * Shape::warp_m + lane / 4;
}
template <class Shape>
__device__ __forceinline__ int first_column_in_tile() {
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = threadIdx.x % 32;
  return warp % Shape::warps_along_n * Shape::warp_n + lane % 4 * 2;
}

__device__ __forceinline__ void multiply_fragments(bf16_t, float (&c)[4], const uint32_t (&a)[4],
                                                   const uint32_t (&b)[2]) {
  mma_m16n8k16_bf16(c, a, b);
}
__device__ __forceinline__ void multiply_fragments(f16_t, float (&c)[4], const uint32_t (&a)[4],
                                                   const uint32_t (&b)[2]) {
  mma_m16n8k16_f16(c, a, b);
}

// Where a lane reads fragments of a tile: its place is worked out once, and what differs from fragment to fragment is a number of
// whole lines and a bit of the piece, both known when compiling.
template <class Tile>
class FragmentPlace {
 public:
  __device__ __forceinline__ FragmentPlace(int line, int piece)
      : lines_(line * Tile::line_elements), piece_(Tile::place(line, piece) - lines_) {}
  // `lines` more (a multiple of eight, which keeps the swap), and `piece` more, whose bits the lane's own piece lacks.
  __device__ __forceinline__ int at(int lines, int piece) const {
    return lines_ + lines * Tile::line_elements + (piece_ ^ (piece * piece_elements));
  }

 private:
  int lines_, piece_;
};

// Fragments of the left operand of a warp whose rows start at `row`. Fragment i of a step has 16 rows × 16 k: rows 0–7 and
// 8–15 of the first eight k, then of the second.
template <class Tile>
class LeftFragments {
 public:
  __device__ __forceinline__ LeftFragments(int row, int lane)
      : place_(along_k ? FragmentPlace<Tile>(row + lane % 16, lane / 16)
                       : FragmentPlace<Tile>(lane / 16 * 8 + lane % 8, row / 8 + lane / 8 % 2)) {}
  template <class T>
  __device__ __forceinline__ void load(uint32_t (&a)[4], const T* tile, int i, int step) const {
    if constexpr (along_k) {
      ldmatrix_x4(a, tile + place_.at(16 * i, 2 * step));
    } else {
      ldmatrix_x4_transposed(a, tile + place_.at(16 * step, 2 * i));
    }
  }

 private:
  static constexpr bool along_k = Tile::fastest == Fastest::k;
  FragmentPlace<Tile> place_;
};

// Fragments of the right operand, 8 columns × 16 k each, from column `row` on; two at a time: k 0–7 and 8–15 of eight columns,
// then of the next eight columns, or (`one_column`: the warp has no more) of the next step.
template <class Tile, bool one_column>
class RightFragments {
 public:
  __device__ __forceinline__ RightFragments(int row, int lane)
      : place_(along_k ? (one_column ? FragmentPlace<Tile>(row + lane % 8, lane / 8)
                                     : FragmentPlace<Tile>(row + lane / 16 * 8 + lane % 8, lane / 8 % 2))
                       : (one_column ? FragmentPlace<Tile>(lane, row / 8)
                                     : FragmentPlace<Tile>(lane / 8 % 2 * 8 + lane % 8, row / 8 + lane / 16))) {}
  template <class T>
  __device__ __forceinline__ void load(uint32_t (&first)[2], uint32_t (&second)[2], const T* tile, int j,
                                       int step) const {
    uint32_t both[4];
    if constexpr (along_k) {
      ldmatrix_x4(both, tile + place_.at(8 * j, 2 * step));
    } else {
      ldmatrix_x4_transposed(both, tile + place_.at(16 * step, j));
    }
    first[0] = both[0], first[1] = both[1];
    second[0] = both[2], second[1] = both[3];
  }

 private:
  static constexpr bool along_k = Tile::fastest == Fastest::k;
  FragmentPlace<Tile> place_;
};

// A warp's fragments of a stage, one step of sixteen along k in hand and the next one on its way.
template <class Shape, class LeftTile, class RightTile>
class WarpProduct {
 public:
  static constexpr int steps = tile_k / 16;

  __device__ __forceinline__ WarpProduct()
      : left_place_(static_cast<int>(threadIdx.x) / 32 / Shape::warps_along_n * Shape::warp_m, threadIdx.x % 32),
        right_place_(static_cast<int>(threadIdx.x) / 32 % Shape::warps_along_n * Shape::warp_n, threadIdx.x % 32) {}

  template <class T>
  __device__ __forceinline__ void load(const T* stage, int step) {
    const T* right = stage + LeftTile::elements;
    LATHE_UNROLL
    for (int i = 0; i < Shape::left_fragments; ++i) left_place_.load(left_[step % 2][i], stage, i, step);
    if constexpr (one_column) {
      if (step % 2 == 0) right_place_.load(right_[step / 2 % 2][0], right_[step / 2 % 2][1], right, 0, step);
    } else {
      LATHE_UNROLL
      for (int j = 0; j < Shape::right_fragments; j += 2)
        right_place_.load(right_[step % 2][j], right_[step % 2][j + 1], right, j, step);
    }
  }

  template <class T>
  __device__ __forceinline__ void multiply(TileSums<Shape>& sums, int step) const {
    LATHE_UNROLL
    for (int i = 0; i < Shape::left_fragments; ++i) {
      LATHE_UNROLL
      for (int j = 0; j < Shape::right_fragments; ++j)
        multiply_fragments(T{}, sums.at[i][j], left_[step % 2][i],
                           one_column ? right_[step / 2 % 2][step % 2] : right_[step % 2][j]);
    }
  }

 private:
  static constexpr bool one_column = Shape::right_fragments == 1;

  LeftFragments<LeftTile> left_place_;
  RightFragments<RightTile, one_column> right_place_;
  uint32_t left_[2][Shape::left_fragments][4];
  uint32_t right_[2][one_column ? 2 : Shape::right_fragments][2];
};

// sums += `steps` tiles along k. `pipeline` is Shape::shared_bytes of shared memory that nobody reads or writes any more.
// A source fills a stage, each step once and in order:
//   begin(step, left, right)   starts what can be in flight: cp.async into the stage, or loads into the source's own registers
//   end(step, left, right)     after the products of an earlier stage: stores what had to pass through registers
// Tiles along k past the end of an operand, and rows past its last, are zeros.
//
// Fragments are loaded one step of sixteen before their products, over the end of a stage, too: the tensor cores have the last
// products of a stage to do while the first fragments of the next one come.
template <class Shape, class LeftTile, class RightTile, class T, class Source>
__device__ __forceinline__ void multiply_tiles(TileSums<Shape>& sums, T* pipeline, int steps, Source& source) {
  static_assert(LeftTile::rows == Shape::m && RightTile::rows == Shape::n);
  static_assert(LeftTile::conflict_free() && RightTile::conflict_free());
  for (int step = 0; step < Shape::stages - 1; ++step) {
    T* stage = pipeline + step * Shape::stage_elements;
    if (step < steps) {
      source.begin(step, stage, stage + LeftTile::elements);
      source.end(step, stage, stage + LeftTile::elements);
    }
    cp_async_commit();  // one group for each step, empty at the end, so that the wait can count
  }
  using Product = WarpProduct<Shape, LeftTile, RightTile>;
  Product product;
  if (steps > 0) {
    cp_async_wait<Shape::stages - 2>();
    __syncthreads();  // the first stage is there for all
    product.load(pipeline, 0);
  }
  int reading = 0, filling = Shape::stages - 1;  // stages
  for (int step = 0; step < steps; ++step) {
    const T* current = pipeline + reading * Shape::stage_elements;
    T* empty = pipeline + filling * Shape::stage_elements;
    reading = reading + 1 == Shape::stages ? 0 : reading + 1;
    filling = filling + 1 == Shape::stages ? 0 : filling + 1;
    const int ahead = step + Shape::stages - 1;
    if (ahead < steps) source.begin(ahead, empty, empty + LeftTile::elements);
    cp_async_commit();
    LATHE_UNROLL
    for (int part = 0; part < Product::steps; ++part) {
      if (part + 1 < Product::steps) {
        product.load(current, part + 1);
      } else {
        if (ahead < steps) source.end(ahead, empty, empty + LeftTile::elements);
        if (step + 1 < steps) {
          cp_async_wait<Shape::stages - 2>();
          __syncthreads();  // the next stage is there for all, and all have this one in their registers: it is empty
          product.load(pipeline + reading * Shape::stage_elements, 0);
        }
      }
      product.template multiply<T>(sums, part);
    }
  }
}

__host__ __device__ __forceinline__ int tiles_along(int64_t k) { return static_cast<int>((k + tile_k - 1) / tile_k); }

// Which tile of the product a block computes. Blocks that run at the same time should share rows and columns, so that the
// second-level cache holds what they read: tiles are walked down groups of eight rows of tiles. Walking along whole rows, a
// vocabulary of 128k columns would stream its weight from memory once for each row of tiles.
template <class Shape>
__device__ __forceinline__ void find_tile(int64_t m, int64_t n, int64_t& first_row, int64_t& first_column) {
  constexpr unsigned group = 8;
  const unsigned tiles_m = static_cast<unsigned>((m + Shape::m - 1) / Shape::m),
                 tiles_n = static_cast<unsigned>((n + Shape::n - 1) / Shape::n);
  const unsigned above = blockIdx.x / (group * tiles_n) * group, within = blockIdx.x % (group * tiles_n);
  const unsigned height = tiles_m - above < group ? tiles_m - above : group;
  first_row = int64_t{above + within % height} * Shape::m;
  first_column = int64_t{within / height} * Shape::n;
}

template <class Shape>
inline int64_t count_tiles(int64_t m, int64_t n) {
  return (m + Shape::m - 1) / Shape::m * ((n + Shape::n - 1) / Shape::n);
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
