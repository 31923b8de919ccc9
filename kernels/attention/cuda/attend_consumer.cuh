// A consuming warpgroup of attend_warpgroups.cuh: 64 rows of a tile. While a chunk's weights meet its values and
// queries meet the keys of the chunk after the next one, the next chunk's scores become weights, and outputs are
// merged. D = 256 has no registers for that: a chunk's scores, weights and output follow each other, 64 columns at a
// time, and only the other warpgroup's products go on meanwhile.
#pragma once

#include "kernels/attention/cuda/attend.cuh"
#include "kernels/attention/cuda/warpgroup.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE::flash {

// What a consuming warpgroup sees of the ring.
template <class Shape>
struct ChunkRing {
  using Panels = HeadPanels<typename Shape::T, chunk, Shape::D>;
  typename Shape::Memory& memory;
  int first;  // chunk

  __device__ __forceinline__ const Panels& wait(int n) const {
    memory.pipeline.wait_until_full(Shape::place(n));
    return memory.at[Shape::place(n).stage];
  }
  __device__ __forceinline__ void release(int n) const { memory.pipeline.release(Shape::place(n).stage); }

  __device__ __forceinline__ const Panels& keys(int c) const { return wait(2 * (c - first)); }
  __device__ __forceinline__ const Panels& values(int c) const { return wait(2 * (c - first) + 1); }
  __device__ __forceinline__ void release_keys(int c) const { release(2 * (c - first)); }
  __device__ __forceinline__ void release_values(int c) const { release(2 * (c - first) + 1); }

  // Chunks in which none of the warpgroup's rows sees anything.
  __device__ __forceinline__ void leave_out(int begin, int end) const {
    for (int n = 2 * (begin - first); n < 2 * (end - first); ++n) {
      wait(n);
      release(n);
    }
  }
};

// A consuming warpgroup: its rows begin at the tile's row `row`, of which a warp has `rows`, in shared memory.
template <class Shape>
struct Consumer {
  using T = typename Shape::T;
  using Weights = LeftOperand<T, 16, chunk>;
  using Scores = float[chunk / 2];
  const ChunkRing<Shape>& ring;
  ScoreRule rule;
  int row;
  const WarpRows& rows;
  RowsState<16, Shape::D> state;
  // Of the chunk whose output comes next. The weights stay f32 while wgmma is under way: ptxas runs one after the other
  // where registers of A are written meanwhile.
  Accumulator<16, chunk> found;
  RowValues<16> factor;

  // Products become chunk c's weights; returns the rows' sums.
  __device__ __forceinline__ RowValues<16> find_weights(const Scores& products, int c, RowValues<16>& maximum) {
    RowValues<16> sum;
    for_each(found, [&](int, int j, int e, float& score) { score = products[4 * j + e]; });
    chunk_scores<T>(found, maximum, rows, c, rule);
    chunk_weights(found, maximum, sum, rule.unit);
    return sum;
  }

  // Queries meet keys of chunk c, with nothing else under way.
  __device__ __forceinline__ void multiply_keys(Scores& s, int c) const {
    const auto& keys = ring.keys(c);
    wgmma_fence();
    queue_transposed(s, ring.memory.queries, row, keys);
    wgmma_wait<0>(s);
    ring.release_keys(c);
  }
  __device__ __forceinline__ void find_first(int c) {
    Scores s;
    multiply_keys(s, c);
    RowValues<16> maximum;
    const auto sum = find_weights(s, c, maximum);
    factor = state.expect(maximum, sum);
  }

  template <int sums>
  __device__ __forceinline__ void add(const float (&chunk_out)[sums], int first, const RowValues<16>& after) {
    LATHE_UNROLL
    for (int i = 0; i < sums; ++i) state.add(0, first / 8 + i / 4, i % 4, chunk_out[i], after);
  }

  // Chunk c's output, of some columns after the others, with nothing else under way: two of D = 256 under way together
  // spilled 26 registers.
  __device__ __forceinline__ void add_output(int c) {
    constexpr int columns = Shape::output_columns;
    const Weights weights(found, nullptr);
    const auto& values = ring.values(c);
    LATHE_UNROLL
    for (int first = 0; first < Shape::D; first += columns) {
      float o[columns / 2];
      wgmma_fence();
      queue_weighted<Onto::nothing>(o, weights, values, first / 64);
      wgmma_wait<0>(o);
      add(o, first, factor);
    }
    done_with(weights);
    ring.release_values(c);
  }

  // One thing after the other, with the registers of a large head.
  __device__ __forceinline__ void attend_in_turn(const ChunkRange& seen) {
    for (int c = seen.begin; c < seen.end; ++c) {
      find_first(c);
      add_output(c);
    }
  }

  // Chunk c's output, found while the products `now` become chunk c + 1's weights and, with `next`, those of chunk
  // c + 2 come in behind it: the tensor cores have two products to do for one chunk's softmax and merging.
  template <class... Next>
  __device__ __forceinline__ void turn(int c, const Scores& now, Next&... next) {
    constexpr int behind = sizeof...(Next);  // groups of wgmma
    const Weights weights(found, nullptr);
    const RowValues<16> after = factor;
    const auto& values = ring.values(c);
    float o[Shape::D / 2];
    if constexpr (behind > 0) {
      const auto& keys = ring.keys(c + 2);
      wgmma_fence();
      queue_weighted<Onto::nothing>(o, weights, values);
      (queue_transposed(next, ring.memory.queries, row, keys), ...);
    } else {
      wgmma_fence();
      queue_weighted<Onto::nothing>(o, weights, values);
    }
    RowValues<16> maximum;
    const auto sum = find_weights(now, c + 1, maximum);
    wgmma_wait<behind>(o);
    done_with(weights);
    ring.release_values(c);
    add(o, 0, after);
    factor = state.expect(maximum, sum);
    if constexpr (behind > 0) {
      ring.values(c + 1);  // needed next: waited for here, it keeps ptxas from moving the merging behind the products
      (wgmma_wait<0>(next), ...);
      ring.release_keys(c + 2);
    }
  }

  static __device__ __forceinline__ void copy(Scores& to, const Scores& from) {
    LATHE_UNROLL
    for (int i = 0; i < chunk / 2; ++i) to[i] = from[i];
  }

  // Without a soft cap, as the compiler is to know: with it tanh's registers spilled.
  __device__ __forceinline__ void attend_overlapped(const ChunkRange& seen) {
    rule.cap = 0;
    int c = seen.begin;
    find_first(c);
    if (c + 1 < seen.end) {
      Scores now;
      multiply_keys(now, c + 1);
      if constexpr (Shape::D < 128) {  // two at a time, so that products stay in the registers where they came
#pragma unroll 1
        for (; c + 3 < seen.end; c += 2) {
          Scores next, after;
          turn(c, now, next);
          turn(c + 1, next, after);
          copy(now, after);
        }
      }
#pragma unroll 1
      for (; c + 2 < seen.end; ++c) {
        Scores next;
        turn(c, now, next);
        copy(now, next);
      }
      turn(c++, now);
    }
    add_output(c);
  }
};

// A warpgroup whose rows of the tile begin at `row`.
template <class Shape>
__device__ __forceinline__ void consume_chunks(const TileCall<typename Shape::T>& call, typename Shape::Memory& memory,
                                               const ChunkRange& chunks, int row) {
  const ChunkRing<Shape> ring{memory, chunks.begin};
  const Tile& tile = memory.tile;
  Tile own = tile;  // the warpgroup's rows
  own.first_row += row;
  own.rows = tile.rows - row < 64 ? tile.rows - row : 64;
  if (own.rows <= 0) return ring.leave_out(chunks.begin, chunks.end);
  const ChunkRange seen = chunks_of(own, call.group, call.rule.window);
  ring.leave_out(chunks.begin, seen.begin);

  const int first = row + static_cast<int>(threadIdx.x) % 128 / 32 * Shape::warp_rows;
  WarpRows& rows = memory.warps[first / Shape::warp_rows];
  if (threadIdx.x % 32 == 0) rows = warp_rows(tile, call.group, first, Shape::warp_rows);
  __syncwarp();
  Consumer<Shape> consumer{ring, call.rule, row, rows, {}, {}, {}};
  if (Shape::output_columns < Shape::D || call.rule.cap > 0)
    consumer.attend_in_turn(seen);
  else
    consumer.attend_overlapped(seen);
  ring.leave_out(seen.end, chunks.end);
  auto& state = consumer.state;
  finish_rows(call, tile, first, memory.out, state.out, state.maximum, state.sum);
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE::flash
