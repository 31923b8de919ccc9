// Matrices of f32 that a recurrence changes from token to token, in registers while the tokens go by: two columns in
// eight neighbouring lanes. A sum along 128 rows is sixteen products of a lane and three shuffles, and no block waits
// for another. Of what does not depend on the matrix, each warp brings one of the next four tokens meanwhile. Sums
// along the columns are made with rows and columns exchanged.
#pragma once

#include "kernels/arguments/token_chunks.h"
#include "kernels/cuda/bounds.h"
#include "kernels/cuda/element.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/row.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE::column_pairs {

constexpr int warps = 4, threads = warps * 32;
constexpr int sharers = 8;       // lanes that share a column
constexpr int lane_columns = 2;  // of each lane
constexpr int warp_columns = 32 / sharers * lane_columns, block_columns = warps * warp_columns;
static_assert(block_columns == 32, "a warp loads those of a token at once");
constexpr int stage_tokens = warps;
// That a multiprocessor is to have at least: left to itself, nvcc spills where it might have fewer.
constexpr int blocks_for_room(int dim) { return dim > 128 ? 2 : 4; }
static_assert(token_chunk % stage_tokens == 0 && stage_tokens <= sharers);

__device__ __forceinline__ int lane() { return static_cast<int>(threadIdx.x % 32); }
__device__ __forceinline__ int warp() { return static_cast<int>(threadIdx.x / 32); }
__device__ __forceinline__ int sharer() { return lane() % sharers; }
// A lane's first column, counted from the block's.
__device__ __forceinline__ int column_in_block() { return warp() * warp_columns + lane() / sharers * lane_columns; }

union Four {
  float4 vector;
  float at[4];
};
__device__ __forceinline__ Four load_four(const float* from) {
  Four four;
  four.vector = load_vector<float4>(from);
  return four;
}

// A number for each of a lane's columns.
struct Pair {
  float at[lane_columns];
};
__device__ __forceinline__ Pair load_pair(const float* from) {
  const float2 two = load_vector<float2>(from);
  return {{two.x, two.y}};
}
__device__ __forceinline__ void store_pair(float* to, const Pair& pair) {
  store_vector<float2>(to, make_float2(pair.at[0], pair.at[1]));
}
__device__ __forceinline__ Pair operator*(float x, const Pair& pair) { return {{x * pair.at[0], x * pair.at[1]}}; }

__device__ __forceinline__ float dot(const Pair& x, const Pair& y) { return fmaf(x.at[0], y.at[0], x.at[1] * y.at[1]); }

// Four chains for each column, added in order, and then the sharers' sums.
struct Chains {
  float at[lane_columns][4] = {};
  __device__ __forceinline__ Pair sum() const {
    Pair result;
    LATHE_UNROLL
    for (int c = 0; c < lane_columns; ++c)
      result.at[c] = warp_sum<sharers>((at[c][0] + at[c][1]) + (at[c][2] + at[c][3]));
    return result;
  }
};

// A lane's elements of two columns of at most `dim` rows, of which others are 0: rows 4 (8 m + sharer) + e. What a
// column and a row are depends on the pass.
template <int dim>
struct Part {
  static constexpr int fours = dim / (4 * sharers);
  float at[fours][lane_columns][4];

  static __device__ __forceinline__ int row(int m) { return 4 * (m * sharers + sharer()); }
  // body(m, c, e)
  template <class Body>
  static __device__ __forceinline__ void each(const Body& body) {
    LATHE_UNROLL
    for (int m = 0; m < fours; ++m) {
      LATHE_UNROLL
      for (int c = 0; c < lane_columns; ++c) {
        LATHE_UNROLL
        for (int e = 0; e < 4; ++e) body(m, c, e);
      }
    }
  }
  __device__ __forceinline__ void clear() {
    each([&](int m, int c, int e) { at[m][c][e] = 0.0f; });
  }
  // visit(m, e, pair) of the lane's rows that there are.
  template <class Visit>
  static __device__ __forceinline__ void each_row(int rows, const Visit& visit) {
    LATHE_UNROLL
    for (int m = 0; m < fours; ++m) {
      LATHE_UNROLL
      for (int e = 0; e < 4; ++e)
        if (row(m) + e < rows) visit(m, e, row(m) + e);
    }
  }
  // Rows of `columns`, from the lane's own first column on.
  __device__ __forceinline__ void load(const float* from, int rows, int columns) {
    clear();
    each_row(rows, [&](int m, int e, int i) {
      const Pair pair = load_pair(from + int64_t{i} * columns);
      LATHE_UNROLL
      for (int c = 0; c < lane_columns; ++c) at[m][c][e] = pair.at[c];
    });
  }
  __device__ __forceinline__ void store(float* to, int rows, int columns) const {
    each_row(rows, [&](int m, int e, int i) { store_pair(to + int64_t{i} * columns, {{at[m][0][e], at[m][1][e]}}); });
  }
};

// x[row] for the rows of Part::at[m].
template <int dim>
__device__ __forceinline__ Four rows_of(const float* x, int m) {
  return load_four(x + Part<dim>::row(m));
}

// xᵀ times the matrix.
template <int dim>
__device__ __forceinline__ Pair product_with_rows(const Part<dim>& state, const float* x) {
  Chains chains;
  LATHE_UNROLL
  for (int m = 0; m < Part<dim>::fours; ++m) {
    const Four row = rows_of<dim>(x, m);
    LATHE_UNROLL
    for (int c = 0; c < lane_columns; ++c) {
      LATHE_UNROLL
      for (int e = 0; e < 4; ++e) chains.at[c][e] = fmaf(row.at[e], state.at[m][c][e], chains.at[c][e]);
    }
  }
  return chains.sum();
}

// Calls body.operator()<dim>() with the room for so many rows in registers.
template <class Body>
void with_room(int64_t dim, const Body& body) {
  if (dim <= 32) return body.template operator()<32>();
  if (dim <= 128) return body.template operator()<128>();
  body.template operator()<256>();
}

inline LaunchConfig config_of(const char* name, int64_t x, int64_t y = 1, int64_t z = 1) {
  return {.name = name,
          .grid = dim3(static_cast<unsigned>(x), static_cast<unsigned>(y), static_cast<unsigned>(z)),
          .block = dim3(threads)};
}
inline int64_t blocks_for(int64_t items, int64_t each) { return (items + each - 1) / each; }

// start(first sequence, bounds) for as many sequences at a time as a launch takes.
template <class Start>
void for_each_counted_launch(const int32_t* cu_seqlens, int64_t sequences, const Start& start) {
  int64_t first = 0;
  for_each_launch(cu_seqlens, sequences, [&](const SequenceBounds& bounds) {
    if (bounds.at[bounds.count] > bounds.at[0]) start(first, bounds);
    first += bounds.count;
  });
}

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }
__device__ __forceinline__ float softplus(float x) { return fmaxf(x, 0.0f) + log1pf(expf(-fabsf(x))); }
template <class T>
__device__ __forceinline__ float number_of(const void* from, bool wide, int64_t i) {
  return wide ? static_cast<const float*>(from)[i] : to_float(static_cast<const T*>(from)[i]);
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE::column_pairs
