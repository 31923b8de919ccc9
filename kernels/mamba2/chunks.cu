// What a chunk's tokens get, of each other and of the states at its bounds (bodies.h).
#include "kernels/cuda/token_chunk_rows.cuh"
#include "kernels/mamba2/state.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE::mamba2 {
namespace {

// A block multiplies matrices of 64 rows and columns, 32 of their terms at a time; a thread has four rows and eight
// columns of the product.
constexpr int tile = static_cast<int>(token_chunk), slice = 32;
constexpr int tile_rows = 4, tile_columns = 8, threads_across = tile / tile_columns;
static_assert(threads / threads_across * tile_rows == tile);

using Slice = float[tile][slice + 1];
using Table = float[tile][tile + 1];  // of pairs: a row is for r, a column for s
struct Slices {
  Slice left, right;
};
union Scratch {
  Slices slices;
  Table table;
};
struct ChunkMemory {
  Table of_states;          // C_r · B_s
  Table of_states_weighed;  // the same times D(s, r), s ≤ r
  Table of_values;          // grad_out_r · v_s times D(s, r), s ≤ r
  Scratch scratch;
  // Of tokens; those that there are not have zeros.
  float step[tile], gamma[tile], from_begin[tile], to_end[tile];  // D(0, r), D(s, end)
  float of_begin[tile], of_end[tile];                             // γ's gradients from S₀ to r, from s to E
  float grad_step[tile], of_D[tile];                              // through v alone; D's gradient
  float sums[3][warps];
};
using ChunkResources = BlockResources<threads, 2, sizeof(ChunkMemory)>;

// A thread's part of a product.
struct Tile {
  float at[tile_rows][tile_columns];

  static __device__ __forceinline__ int first_row() {
    return static_cast<int>(threadIdx.x) / threads_across * tile_rows;
  }
  static __device__ __forceinline__ int first_column() {
    return static_cast<int>(threadIdx.x) % threads_across * tile_columns;
  }
  __device__ __forceinline__ void clear() {
    each([&](int, int, float& element) { element = 0.0f; });
  }
  // body(row, column, element)
  template <class Body>
  __device__ __forceinline__ void each(const Body& body) {
    LATHE_UNROLL
    for (int r = 0; r < tile_rows; ++r) {
      LATHE_UNROLL
      for (int c = 0; c < tile_columns; ++c) body(first_row() + r, first_column() + c, at[r][c]);
    }
  }
  // += left × rightᵀ.
  __device__ __forceinline__ void multiply(const Slices& slices) {
    for (int i = 0; i < slice; ++i) {
      float column[tile_columns];
      LATHE_UNROLL
      for (int c = 0; c < tile_columns; ++c) column[c] = slices.right[first_column() + c][i];
      LATHE_UNROLL
      for (int r = 0; r < tile_rows; ++r) {
        const float row = slices.left[first_row() + r][i];
        LATHE_UNROLL
        for (int c = 0; c < tile_columns; ++c) at[r][c] = fmaf(row, column[c], at[r][c]);
      }
    }
  }
  // to[row] += Σ of value(row, column, element) along the row, of the rows before `count`.
  template <class Value>
  __device__ __forceinline__ void add_row_sums(float* to, int count, const Value& value) const {
    LATHE_UNROLL
    for (int r = 0; r < tile_rows; ++r) {
      const int row = first_row() + r;
      float sum = 0.0f;
      LATHE_UNROLL
      for (int c = 0; c < tile_columns; ++c)
        if (row < count) sum += value(row, first_column() + c, at[r][c]);
      sum = warp_sum<threads_across>(sum);
      if (threadIdx.x % threads_across == 0) to[row] += sum;
    }
  }
};

// Which of a slice's numbers neighbouring lanes fetch: those of one row, or one number of all rows.
enum class Lanes { along, across };
template <Lanes lanes, class Number>
__device__ __forceinline__ void fill_slice(Slice& to, int first, int dim, const Number& number) {
  if constexpr (lanes == Lanes::along) {
    for (int row = warp(); row < tile; row += warps)
      to[row][lane()] = first + lane() < dim ? number(row, first + lane()) : 0.0f;
  } else {
    for (int i = warp(); i < slice; i += warps) {
      LATHE_UNROLL
      for (int row = lane(); row < tile; row += 32) to[row][i] = first + i < dim ? number(row, first + i) : 0.0f;
    }
  }
}

// product += the sum over i < dim of left(row, i) · right(column, i).
template <Lanes left_lanes, Lanes right_lanes, class Left, class Right>
__device__ __forceinline__ void multiply(Tile& product, Slices& slices, int dim, const Left& left, const Right& right) {
  for (int first = 0; first < dim; first += slice) {
    __syncthreads();  // all have left the slices before
    fill_slice<left_lanes>(slices.left, first, dim, left);
    fill_slice<right_lanes>(slices.right, first, dim, right);
    __syncthreads();  // the slices are there
    product.multiply(slices);
  }
}

// A chunk's heads of one group, one after the other.
template <class T>
struct ChunkHeads {
  const Mamba2BackwardArgs& a;
  ChunkMemory& memory;
  ChunkRows rows;
  int64_t chunk, part, head;
  bool first;  // of the part's heads

  __device__ __forceinline__ int count() const { return static_cast<int>(rows.end - rows.begin); }
  __device__ __forceinline__ int head_dim() const { return static_cast<int>(a.head_dim); }
  __device__ __forceinline__ int state_size() const { return static_cast<int>(a.state_size); }
  // Of a token of the chunk, 0 outside of what there is.
  __device__ __forceinline__ float of_xbc(int t, int64_t column, int i, int dim) const {
    return t < count() && i < dim ? to_float(row_of<T>(a.xbc, rows.begin + t)[column + i]) : 0.0f;
  }
  __device__ __forceinline__ float b(int t, int n) const { return of_xbc(t, a.b_column(head), n, state_size()); }
  __device__ __forceinline__ float c(int t, int n) const { return of_xbc(t, a.c_column(head), n, state_size()); }
  __device__ __forceinline__ float x(int t, int p) const { return of_xbc(t, a.x_column(head), p, head_dim()); }
  __device__ __forceinline__ float grad_out(int t, int p) const {
    return t < count() && p < head_dim() ? to_float(row_of<T>(a.grad_out, rows.begin + t)[a.x_column(head) + p]) : 0.0f;
  }
  __device__ __forceinline__ float of_matrix(const float* matrices, int n, int p) const {
    return n < state_size() && p < head_dim() ? matrices[a.matrix_of_head(chunk, head) + int64_t{n} * head_dim() + p]
                                              : 0.0f;
  }
  __device__ __forceinline__ float before(int n, int p) const { return of_matrix(a.work.chunk_states, n, p); }
  __device__ __forceinline__ float after(int n, int p) const { return of_matrix(a.work.chunk_grad_states, n, p); }

  __device__ __forceinline__ void multiply_states() const {
    Tile product;
    product.clear();
    multiply<Lanes::along, Lanes::along>(
        product, memory.scratch.slices, state_size(), [&](int r, int n) { return c(r, n); },
        [&](int s, int n) { return b(s, n); });
    product.each([&](int r, int s, float& element) { memory.of_states[r][s] = element; });
  }

  // D(s, r) in the place of the weighed table.
  __device__ __forceinline__ Steps load_steps() const {
    const int t = static_cast<int>(threadIdx.x);
    Steps steps{};
    __syncthreads();  // all have left the head before
    if (t < tile) {
      if (t < count()) steps = steps_of<T>(a, head, row_of<T>(a.dt, rows.begin + t)[head]);
      memory.step[t] = steps.step;
      memory.gamma[t] = steps.gamma;
      memory.of_begin[t] = memory.of_end[t] = memory.grad_step[t] = memory.of_D[t] = 0.0f;
    }
    __syncthreads();  // all gammas are there
    if (t < tile) {
      float decay = 0.0f;
      for (int r = 0; r < tile; ++r) {
        decay = r == t ? 1.0f : decay * memory.gamma[r];
        memory.of_states_weighed[r][t] = r < count() ? decay : 0.0f;
        if (r == count() - 1) memory.to_end[t] = decay;
      }
    } else if (t == tile) {
      float decay = 1.0f;
      for (int r = 0; r < tile; ++r) memory.from_begin[r] = decay *= memory.gamma[r];
    }
    return steps;
  }

  __device__ __forceinline__ void weigh_pairs() const {
    Tile product;
    product.clear();
    multiply<Lanes::along, Lanes::along>(
        product, memory.scratch.slices, head_dim(), [&](int r, int p) { return grad_out(r, p); },
        [&](int s, int p) { return x(s, p); });
    product.each([&](int r, int s, float& element) {
      const float decay = memory.of_states_weighed[r][s];
      memory.of_states_weighed[r][s] = decay * memory.of_states[r][s];
      memory.of_values[r][s] = (decay * memory.step[s]) * element;
    });
    __syncthreads();  // the tables are there, and all have left the slices
  }

  // γ's gradient times γ of a thread's token, from pairs in the chunk: column sums over r from the end on, of which
  // each row takes those of s < t.
  __device__ __forceinline__ float sum_pairs() const {
    const int t = static_cast<int>(threadIdx.x);
    Table& sums = memory.scratch.table;
    if (t < tile) {
      float sum = 0.0f;
      for (int r = count() - 1; r > t; --r) {
        sum = fmaf(memory.of_values[r][t], memory.of_states[r][t], sum);
        sums[r][t] = sum;
      }
    }
    __syncthreads();  // the columns are summed
    float along = 0.0f;
    if (t < count())
      for (int s = 0; s < t; ++s) along += sums[t][s];
    return along;
  }

  __device__ __forceinline__ void grad_x() const {
    const float skip = number_of<T>(a.D, head);
    for (int begin = 0; begin < head_dim(); begin += tile) {
      Tile grad_v;
      grad_v.clear();
      multiply<Lanes::across, Lanes::across>(
          grad_v, memory.scratch.slices, count(), [&](int s, int r) { return memory.of_states_weighed[r][s]; },
          [&](int p, int r) { return grad_out(r, begin + p); });
      if (!rows.is_last)
        multiply<Lanes::along, Lanes::across>(
            grad_v, memory.scratch.slices, state_size(), [&](int s, int n) { return memory.to_end[s] * b(s, n); },
            [&](int p, int n) { return after(n, begin + p); });
      grad_v.add_row_sums(memory.grad_step, count(), [&](int s, int p, float of_v) { return of_v * x(s, begin + p); });
      grad_v.add_row_sums(memory.of_D, count(),
                          [&](int s, int p, float) { return grad_out(s, begin + p) * x(s, begin + p); });
      grad_v.each([&](int s, int p, float& of_v) {
        if (s < count() && begin + p < head_dim())
          row_of<T>(a.grad_xbc, rows.begin + s)[a.x_column(head) + begin + p] =
              from_float<T>(fmaf(skip, grad_out(s, begin + p), memory.step[s] * of_v));
      });
    }
  }

  // What the heads of the part have given so far, and this one: each number has one thread, the same for all heads.
  __device__ __forceinline__ void add_to_part(float* of, int begin, Tile& gradient) const {
    gradient.each([&](int t, int n, float& element) {
      if (t >= count() || begin + n >= state_size()) return;
      float& sum = of[((rows.begin + t) * a.parts() + part) * a.state_size + begin + n];
      sum = first ? element : sum + element;
    });
  }

  __device__ __forceinline__ void grad_b() const {
    for (int begin = 0; begin < state_size(); begin += tile) {
      Tile gradient;
      gradient.clear();
      if (!rows.is_last) {
        multiply<Lanes::along, Lanes::along>(
            gradient, memory.scratch.slices, head_dim(),
            [&](int s, int p) { return memory.to_end[s] * memory.step[s] * x(s, p); },
            [&](int n, int p) { return after(begin + n, p); });
        gradient.add_row_sums(memory.of_end, count(), [&](int s, int n, float of_b) { return of_b * b(s, begin + n); });
      }
      multiply<Lanes::across, Lanes::across>(
          gradient, memory.scratch.slices, count(), [&](int s, int r) { return memory.of_values[r][s]; },
          [&](int n, int r) { return c(r, begin + n); });
      add_to_part(a.work.grad_b, begin, gradient);
    }
  }

  __device__ __forceinline__ void grad_c() const {
    for (int begin = 0; begin < state_size(); begin += tile) {
      Tile gradient;
      gradient.clear();
      if (!rows.is_first) {
        multiply<Lanes::along, Lanes::along>(
            gradient, memory.scratch.slices, head_dim(),
            [&](int r, int p) { return memory.from_begin[r] * grad_out(r, p); },
            [&](int n, int p) { return before(begin + n, p); });
        gradient.add_row_sums(memory.of_begin, count(),
                              [&](int r, int n, float of_c) { return of_c * c(r, begin + n); });
      }
      multiply<Lanes::along, Lanes::across>(
          gradient, memory.scratch.slices, count(), [&](int r, int s) { return memory.of_values[r][s]; },
          [&](int n, int s) { return b(s, begin + n); });
      add_to_part(a.work.grad_c, begin, gradient);
    }
  }

  // ⟨S₀, E⟩, a warp's share.
  __device__ __forceinline__ float of_bounds() const {
    if (rows.is_first || rows.is_last) return 0.0f;
    const int64_t matrix = a.matrix_of_head(chunk, head);
    float sum = 0.0f;
    for (int i = static_cast<int>(threadIdx.x); i < state_size() * head_dim(); i += threads)
      sum = fmaf(a.work.chunk_states[matrix + i], a.work.chunk_grad_states[matrix + i], sum);
    return warp_sum(sum);
  }

  // The gradient of dt, and the chunk's sums, of `along` of the pairs in it.
  __device__ __forceinline__ void store_steps(const Steps& steps, float along) const {
    const int t = static_cast<int>(threadIdx.x);
    const float share = of_bounds();
    if (lane() == 0) memory.sums[0][warp()] = share;
    __syncthreads();  // the shares are there, and what rows were summed to
    float of_weights[3] = {};
    if (t < count()) {
      float bounds = memory.sums[0][0];
      for (int w = 1; w < warps; ++w) bounds += memory.sums[0][w];
      float of_state = memory.from_begin[count() - 1] * bounds;
      for (int s = 0; s < t; ++s) of_state += memory.of_end[s];
      for (int r = count() - 1; r >= t; --r) of_state += memory.of_begin[r];
      along += of_state;
      const float rate = expf(number_of<T>(a.A_log, head)), free = softplus(steps.raw);
      const float slope = free < a.dt_min || free > a.dt_max ? 0.0f : sigmoid(steps.raw);
      of_weights[0] = -(along * (rate * steps.step));
      of_weights[1] = memory.of_D[t];
      of_weights[2] = (memory.grad_step[t] - along * rate) * slope;
      row_of<T>(a.grad_dt, rows.begin + t)[head] = from_float<T>(of_weights[2]);
    }
    __syncthreads();  // all have the sums before
    LATHE_UNROLL
    for (int which = 0; which < 3; ++which) {
      const float sum = warp_sum(of_weights[which]);
      if (lane() == 0) memory.sums[which][warp()] = sum;
    }
    __syncthreads();  // the warps' sums are there
    static_assert(tile == 2 * 32);
    if (t < 3) a.work.chunk_sums[(chunk * a.heads + head) * 3 + t] = memory.sums[t][0] + memory.sums[t][1];
  }

  __device__ __forceinline__ void run() {
    const Mamba2Part heads = mamba2_part(a, part);
    head = heads.begin;
    multiply_states();
    for (; head < heads.end; ++head) {
      first = head == heads.begin;
      const Steps steps = load_steps();
      weigh_pairs();
      const float along = sum_pairs();
      grad_x();
      grad_b();
      grad_c();
      store_steps(steps, along);
    }
  }
};

template <class T>
__global__ void __launch_bounds__(ChunkResources::threads, ChunkResources::blocks)
    mamba2_chunk_kernel(ChunkResources, Mamba2BackwardArgs a, int64_t first_sequence, int64_t first_chunk,
                        SequenceBounds bounds) {
  const int64_t chunk = first_chunk + blockIdx.y;
  const ChunkRows rows = rows_of_chunk(bounds, first_sequence, chunk);
  if (rows.begin == rows.end) return;
  ChunkHeads<T> heads{a, *dynamic_shared<ChunkMemory>(), rows, chunk, blockIdx.x, 0, true};
  heads.run();
}

template <class T>
void launch_chunks(const Mamba2BackwardArgs& a) {
  for_each_chunk_launch(a.cu_seqlens, a.sequences,
                        [&](int64_t sequence, int64_t first, int64_t count, const SequenceBounds& bounds) {
                          launch("mamba2_chunks", config_of("", a.parts(), count).grid, mamba2_chunk_kernel<T>, a,
                                 sequence, first, bounds);
                        });
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE::mamba2

namespace lathe::kernels {

template <DeviceKind>
void mamba2_chunks_all(const Mamba2BackwardArgs& args) {
  LATHE_CUDA_NAMESPACE::with_element(args.dtype,
                                     [&]<class T>(T) { LATHE_CUDA_NAMESPACE::mamba2::launch_chunks<T>(args); });
}
template void mamba2_chunks_all<DeviceKind::LATHE_CUDA_NAMESPACE>(const Mamba2BackwardArgs&);

}  // namespace lathe::kernels
