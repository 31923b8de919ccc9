// The main loop of f32 products (f32.cu): stages of both operands in shared memory by cp.async, fragments one k ahead
// of their multiplication, one fused multiply-add after the other along k, in chains of 512 that are added in order.
//
// What bounds it is what a scheduler issues: of a thread's 8 × 8 sums a k takes 64 multiply-adds and four 16-byte reads
// of shared memory. These cost two turns of the banks each, because the lanes of a warp lie so that every half of it
// reads 128 bytes at most, its neighbours (or every second lane) the same: half of the multiply-adds' time.
//
// Zeros past the end of k would not do: they turn a sum of -0 into +0. A step that is not whole counts its k.
#pragma once

#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx/element_copy.h"
#include "kernels/cuda/tile/pipeline.cuh"
#include "kernels/cuda/tile/shared_tile.cuh"
#include "kernels/matmul/cuda/product.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

inline constexpr int f32_step = 32;  // of a stage along k
inline constexpr int f32_chain_steps = f32_chain / f32_step;
// A step is multiplied in parts of eight k: unrolled as a whole it would not fit into a scheduler's cache of
// instructions. With each of the first two parts go half of the copies of a later stage: all at once they would hold up
// what comes after them.
inline constexpr int f32_part = 8, f32_copying_parts = 2;

// How `threads` threads share an extent of which each has `each` elements: fours, of which those of all threads are
// neighbours, then a pair.
template <int threads_, int each_>
struct Spread {
  static constexpr int threads = threads_, each = each_, extent = threads * each;
  static_assert(each % 2 == 0);
  // Of the vector that begins with a thread's element i.
  static __host__ __device__ constexpr int width(int i) { return i + 4 <= each ? 4 : 2; }
  // Where element i of a thread lies, i a multiple of four.
  static __host__ __device__ constexpr int place(int thread, int i) { return i * threads + thread * width(i); }
};

// A block's part of the product, m × n, of which a thread has thread_m × thread_n. `issued`: what a warp issues for a
// step, in its machine code (docs/performance.md), by which shapes are compared.
template <int m_, int n_, int thread_m, int thread_n, int stages_, int blocks_, int issued_>
struct F32Shape {
  static constexpr int m = m_, n = n_, stages = stages_, issued = issued_;
  using Rows = Spread<m / thread_m, thread_m>;
  using Columns = Spread<n / thread_n, thread_n>;
  static constexpr int threads = Rows::threads * Columns::threads;
  static_assert(Rows::threads % 4 == 0 && Columns::threads % 8 == 0, "a warp has 4 × 8 threads' sums");

  using Left = PaddedTile<float, f32_step, m>;
  using Right = PaddedTile<float, f32_step, n>;
  struct Stage {
    Left left;
    Right right;
  };
  // Of the chains that are done; at last of all. Here and not in registers: they are needed once in 512 of k.
  using Totals = PaddedTile<float, m, n>;
  struct Memory {
    Stage stages[F32Shape::stages];
    Totals totals;
  };
  using Resources = BlockResources<threads, blocks_, static_cast<int>(sizeof(Memory))>;

  // Of a lane in its warp: lanes 2i and 2i + 1 read the same columns, a half of the warp two fours of rows.
  static __host__ __device__ constexpr int row_of(int thread) {
    return thread / 32 / (Columns::threads / 8) * 4 + thread % 32 / 16 * 2 + thread % 2;
  }
  static __host__ __device__ constexpr int column_of(int thread) {
    return thread / 32 % (Columns::threads / 8) * 8 + thread % 16 / 2;
  }
  static_assert(bank_passes(16, [](int lane) { return Rows::place(row_of(lane), 0) * 4; }) == 1);
  static_assert(bank_passes(16, [](int lane) { return Columns::place(column_of(lane), 0) * 4; }) == 1);
  static_assert(bank_passes(16, [](int lane) {
                  return Totals::offset(Rows::place(row_of(lane), 0), Columns::place(column_of(lane), 0)) * 4;
                }) == 1);
};

// An operand in memory, `stride` elements from line to line of its fastest index. `aligned`: lines start at multiples
// of 16 bytes.
struct F32Operand {
  const float* data;
  int64_t stride;
  bool aligned;
};

// An extent as an int, which is enough to tell whether a tile is whole.
__device__ __forceinline__ int f32_extent(int64_t k) { return k < 1 << 30 ? static_cast<int>(k) : 1 << 30; }

// What a thread copies of each tile of an operand along k. Lines along m or n come 16 bytes at a time, from any other
// place than a multiple of 16 bytes as four times 4. Lines along k are turned over on their way, 4 bytes at a time: a
// warp reads 32 bytes of four lines, which go to 32 different banks.
template <class Tile, Major major, int threads>
class F32Reader {
 public:
  // Tiles of operand rows [first, first + extent of the tile), of `count` that there are, from k = 0 on.
  __device__ __forceinline__ void start(const F32Operand& operand, int64_t first, int64_t count, int64_t k) {
    const int64_t left = count - first;
    const int here = left < Tile::columns ? static_cast<int>(left) : Tile::columns;
    aligned_ = operand.aligned;
    pass_stride_ = operand.stride * lines_at_once;
    if constexpr (k_major) {
      next_ = operand.data + (first + line()) * operand.stride + neighbour();
      to_next_tile_ = f32_step - pass_stride_ * passes;
      lines_left_ = here - line();
      neighbours_left_ = f32_extent(k) - neighbour();
    } else {
      next_ = operand.data + line() * operand.stride + first + neighbour();
      to_next_tile_ = operand.stride * f32_step - pass_stride_ * passes;
      lines_left_ = f32_extent(k) - line();
      neighbours_left_ = here - neighbour();
    }
  }

  // A part of the next tile, of which there are f32_copying_parts; what lies outside the operand is zero.
  __device__ __forceinline__ void read(Tile& tile, int part) {
    const int first = part * passes_of_part;
    const bool whole = lines_left_ > (passes - 1) * lines_at_once && neighbours_left_ > most_neighbour;
    if constexpr (k_major) {
      whole ? turn_over<true>(tile, first) : turn_over<false>(tile, first);
    } else if (aligned_) {
      whole ? copy<true>(tile, first) : copy<false>(tile, first);
    } else {
      copy_elements(tile, first);
    }
  }
  // Behind its last part.
  __device__ __forceinline__ void advance() {
    next_ += to_next_tile_;
    (k_major ? neighbours_left_ : lines_left_) -= f32_step;
  }

 private:
  static constexpr bool k_major = major == Major::k;
  // Lines along k: eight lanes to a line. Others: a lane to a vector, of as many lines as are a power of two.
  static constexpr int lanes_of_line = k_major ? 8 : Tile::vectors;
  static constexpr int lines_at_once = k_major ? threads / 8 : threads / lanes_of_line >= 8 ? 8 : 4;
  static constexpr bool all_copy = lines_at_once * lanes_of_line == threads;
  static constexpr int lines = k_major ? Tile::columns : f32_step, passes = lines / lines_at_once;
  static constexpr int passes_of_part = (passes + f32_copying_parts - 1) / f32_copying_parts;
  static constexpr int most_neighbour = k_major ? f32_step - 8 : 3;
  static_assert(lines % lines_at_once == 0 && lines_at_once * lanes_of_line <= threads);
  static_assert(bank_passes(4, [](int lane) { return Tile::offset(lane % 8, lane / 8) * 4; }) == 1);

  static __device__ __forceinline__ int line() { return static_cast<int>(threadIdx.x) / lanes_of_line; }
  static __device__ __forceinline__ int neighbour() {
    return static_cast<int>(threadIdx.x) % lanes_of_line * (k_major ? 1 : 4);
  }

  // each(from, line of the tile, whether it is there) for the passes of a part.
  template <class Each>
  __device__ __forceinline__ void for_passes(int first, const Each& each) {
    LATHE_UNROLL
    for (int i = 0; i < passes_of_part; ++i) {
      if (passes % passes_of_part != 0 && first + i >= passes) break;
      const int begin = (first + i) * lines_at_once;
      if (all_copy || line() < lines_at_once) each(next_, begin + line(), begin < lines_left_);
      next_ += pass_stride_;
    }
  }

  template <bool whole>
  __device__ __forceinline__ void turn_over(Tile& tile, int first) {
    for_passes(first, [&](const float* from, int line, bool there) {
      LATHE_UNROLL
      for (int k = 0; k < f32_step; k += 8)
        cp_async_4(tile.elements + Tile::offset(neighbour() + k, line), from + k,
                   whole || (there && k < neighbours_left_));
    });
  }

  template <bool whole>
  __device__ __forceinline__ void copy(Tile& tile, int first) {
    const int count = neighbours_left_ < 0 ? 0 : neighbours_left_ > 4 ? 4 : neighbours_left_;
    for_passes(first, [&](const float* from, int line, bool there) {
      cp_async_16(tile.elements + Tile::offset(line, neighbour()), from, whole ? 16 : there ? count * 4 : 0);
    });
  }

  __device__ __forceinline__ void copy_elements(Tile& tile, int first) {
    for_passes(first, [&](const float* from, int line, bool there) {
      LATHE_UNROLL
      for (int i = 0; i < 4; ++i)
        cp_async_4(tile.elements + Tile::offset(line, neighbour() + i), from + i, there && i < neighbours_left_);
    });
  }

  const float* next_;
  int64_t pass_stride_, to_next_tile_;
  int lines_left_, neighbours_left_;  // from this thread's first line and neighbour on
  bool aligned_;
};

// A thread's elements of both operands at one k.
template <class Shape>
struct F32Fragments {
  float left[Shape::Rows::each], right[Shape::Columns::each];
};

// Vectors of a thread's elements of a line.
template <class Along>
__device__ __forceinline__ void load_elements(float (&values)[Along::each], const float* line, int thread) {
  LATHE_UNROLL
  for (int i = 0; i < Along::each; i += 4) {
    const float* const from = line + Along::place(thread, i);
    if (Along::width(i) == 4) {
      const float4 four = load_vector<float4>(from);
      values[i] = four.x, values[i + 1] = four.y, values[i + 2] = four.z, values[i + 3] = four.w;
    } else {
      const float2 two = load_vector<float2>(from);
      values[i] = two.x, values[i + 1] = two.y;
    }
  }
}

// A thread of a block: its sums of the chain under way.
template <class Shape_>
class F32Sums {
 public:
  using Shape = Shape_;
  using Rows = typename Shape::Rows;
  using Columns = typename Shape::Columns;
  using Stage = typename Shape::Stage;
  using Fragments = F32Fragments<Shape>;

  // A whole stage's k in order, `fragments` those of its first. Before each part comes before(part); behind the last k
  // next(fragments) brings the next stage's first.
  template <class Before, class Next>
  __device__ __forceinline__ void add_stage(const Stage& stage, Fragments (&fragments)[2], const Before& before,
                                            const Next& next) {
#pragma unroll 1
    for (int part = 0; part < f32_step / f32_part; ++part) {
      before(part);
      LATHE_UNROLL
      for (int k = 0; k < f32_part; ++k) {
        Fragments& ahead = fragments[(k + 1) % 2];
        if (k + 1 < f32_part || (part + 1) * f32_part < f32_step) {
          load(ahead, stage, part * f32_part + k + 1);
        } else {
          next(ahead);
        }
        multiply(fragments[k % 2]);
      }
    }
  }

  // A stage's first `count` k.
  __device__ __forceinline__ void add_part(const Stage& stage, int count) {
#pragma unroll 1
    for (int k = 0; k < count; ++k) {
      Fragments fragments;
      load(fragments, stage, k);
      multiply(fragments);
    }
  }

  // The chain is added to the totals; the first one is not added to zero, which would lose a negative one.
  __device__ __forceinline__ void close_chain(typename Shape::Totals& totals, bool first) {
    LATHE_UNROLL
    for (int i = 0; i < Rows::each; ++i) {
      const int row = Rows::place(row_, i / 4 * 4) + i % 4;
      LATHE_UNROLL
      for (int j = 0; j < Columns::each; j += 4) {
        float* const at = totals.elements + Shape::Totals::offset(row, Columns::place(column_, j));
        if (Columns::width(j) == 4) {
          float4 sum = {sums_[i][j], sums_[i][j + 1], sums_[i][j + 2], sums_[i][j + 3]};
          if (!first) {
            const float4 before = load_vector<float4>(at);
            sum = {before.x + sum.x, before.y + sum.y, before.z + sum.z, before.w + sum.w};
          }
          store_vector(at, sum);
        } else {
          float2 sum = {sums_[i][j], sums_[i][j + 1]};
          if (!first) {
            const float2 before = load_vector<float2>(at);
            sum = {before.x + sum.x, before.y + sum.y};
          }
          store_vector(at, sum);
        }
      }
      LATHE_UNROLL
      for (int j = 0; j < Columns::each; ++j) sums_[i][j] = 0.0f;
    }
  }

  __device__ __forceinline__ void load(Fragments& fragments, const Stage& stage, int k) const {
    load_elements<Rows>(fragments.left, stage.left.elements + Shape::Left::offset(k, 0), row_);
    load_elements<Columns>(fragments.right, stage.right.elements + Shape::Right::offset(k, 0), column_);
  }

 private:
  __device__ __forceinline__ void multiply(const Fragments& fragments) {
    LATHE_UNROLL
    for (int i = 0; i < Rows::each; ++i) {
      LATHE_UNROLL
      for (int j = 0; j < Columns::each; ++j) sums_[i][j] = fmaf(fragments.left[i], fragments.right[j], sums_[i][j]);
    }
  }

  int row_ = Shape::row_of(static_cast<int>(threadIdx.x)), column_ = Shape::column_of(static_cast<int>(threadIdx.x));
  float sums_[Rows::each][Columns::each] = {};
};

__host__ __device__ __forceinline__ int f32_steps_along(int64_t k) {
  return static_cast<int>((k + f32_step - 1) / f32_step);
}

// memory.totals = the sums of a tile along k and then k2, which goes on with the last chain of k. source.copy(part,
// stage) starts a part of the copies of a step, source.advance() goes on to the next one. Nobody reads or writes
// `memory` any more; each thread has written its own totals on return, and stages may still be read.
template <class Shape, class Source>
__device__ __forceinline__ void multiply_f32_tile(typename Shape::Memory& memory, int64_t k, int64_t k2,
                                                  Source& source) {
  constexpr Pipeline<Shape::stages> pipeline;
  const int first_steps = f32_steps_along(k), steps = first_steps + f32_steps_along(k2);
  F32Sums<Shape> sums;
  F32Fragments<Shape> fragments[2];
  pipeline.start(steps, [&](int step) {
    for (int part = 0; part < f32_copying_parts; ++part) source.copy(part, memory.stages[step]);
    source.advance();
  });
  if (steps > 0) {
    pipeline.wait();
    sums.load(fragments[0], memory.stages[0], 0);
  }
  bool first_chain = true;
  int left = f32_extent(first_steps > 0 ? k : k2);
  int reading = 0, filling = Shape::stages - 1;
  for (int step = 0; step == 0 || step < steps; ++step) {
    const auto& current = memory.stages[reading];
    auto& empty = memory.stages[filling];
    reading = reading + 1 == Shape::stages ? 0 : reading + 1;
    filling = filling + 1 == Shape::stages ? 0 : filling + 1;
    const bool copies = step + pipeline.ahead < steps;
    const auto copy_ahead = [&](int part) {
      if (part < f32_copying_parts && copies) source.copy(part, empty);
      if (part + 1 == f32_copying_parts) cp_async_commit();
    };
    const auto next = [&](auto& ahead) {
      if (step + 1 >= steps) return;
      pipeline.wait();  // for the next stage; all have this one in their registers: it is empty
      sums.load(ahead, memory.stages[reading], 0);
    };
    if (left >= f32_step) {
      sums.add_stage(current, fragments, copy_ahead, next);
    } else {
      for (int part = 0; part < f32_copying_parts; ++part) copy_ahead(part);
      sums.add_part(current, left);
      next(fragments[0]);
    }
    if (copies) source.advance();
    left = step + 1 == first_steps ? f32_extent(k2) : left - f32_step;
    const bool chain_ends = step + 1 < first_steps && (step + 1) % f32_chain_steps == 0;
    if (chain_ends || step + 1 >= steps) {
      sums.close_chain(memory.totals, first_chain);
      first_chain = false;
    }
  }
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
