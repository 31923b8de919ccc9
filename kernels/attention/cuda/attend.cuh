// Attention of a tile of query rows on a card: chunks of 64 keys one after another, each computed apart and merged in
// order (kernels/attention/attention.h). Shared with paged attention, so that training, prefill and decode give the
// same bits.
//
// A tile's rows are tokens × the query heads of one kv head, token-major: row r is token r / group, head r % group. So
// keys and values are read once for a group, and one token of a decode is a tile of `group` rows.
//
// What a row's bits depend on: its own query, the keys it sees, and their places in their chunks. In a chunk
//   score   scale · log2 e · (q·k), softcapped, in log2 units: scores go through exp2
//   m, l    the chunk's maximum, and the sum of 2^(score − m): 16 keys to a lane in ascending order, then lanes t ^ 1
//           and t ^ 2
//   o       Σ 2^(score − m) · v over the chunk's keys, the weights rounded to T
// and merging two results takes M = max(m, m'), a = 2^(m − M), b = 2^(m' − M), l·a + l'·b and o'·b + o·a by one fma
// each, of the first and the second product. A chunk in which a row sees nothing changes no bit of it, so which chunks
// a warp leaves out does not show.
//
// Another way of storing keys needs
//  - a loader with two functions, called by `threads` threads, all of the block, that bring `count` ≥ 1 keys or values
//    from position `first` (a chunk's start) as rows of a shared tile, zeros after them and beyond head_dim:
//      template <int threads, class Tile> void keys(Tile& tile, int first, int count) const;  and values(…)
//    by cp.async (load_rows does it for any rows that lie somewhere in T) or by plain stores: what follows waits for
//    both. Rows that lie in another type may come as they are, to become T's when they are there:
//      template <int threads, class Tile> void arrived(Tile& tile, int count) const;
//    attend_tile() then is the whole kernel (forward.cu has the shortest).
//  - to compute chunks apart (a split decode): attend_chunks() with chunk_output of each, m, l and o put away, and
//    later merge_factors and merge_output in order, starting from m = −∞, l = 0, o = 0.
#pragma once

#include "kernels/attention/cuda/scores.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/tile/pipeline.cuh"
#include "kernels/cuda/tile/product.cuh"
#include "kernels/cuda/tile/rows.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE::flash {

// Head size, warps, rows of the queries that each owns, blocks that a multiprocessor of sm_80 holds at once, and stages
// for keys and values, which come in turn: with two, keys arrive while the chunk before them meets its values, and
// values while their chunk's scores are computed; the other blocks of the multiprocessor cover the rest. (Two chunks of
// each would leave one block to a multiprocessor of sm_80.) With one, values come where the keys were, and nothing is
// on its way meanwhile.
template <class T_, int head_size, int warps_, int warp_rows_, int blocks, int stages_ = 2>
struct AttentionShape {
  using T = T_;
  static constexpr int D = head_size, warps = warps_, warp_rows = warp_rows_, stages = stages_;
  static constexpr int threads = 32 * warps, rows = warps * warp_rows;

  using Scores = Accumulator<warp_rows, chunk>;
  using Weights = LeftOperand<T, warp_rows, chunk>;
  using RowState = RowValues<warp_rows>;
  using QueryTile = PaddedTile<T, rows, D>;
  using ChunkTile = PaddedTile<T, chunk, D>;  // keys or values
  struct Memory {
    QueryTile queries;
    ChunkTile stages[stages_];
  };  // and the warps' rooms for their weights
  static constexpr int shared_bytes = static_cast<int>(sizeof(Memory)) + warps * Weights::room_bytes;
  using Resources = BlockResources<threads, blocks, shared_bytes>;

  // The warp's first row of the tile.
  static __device__ __forceinline__ int warp_row() { return static_cast<int>(threadIdx.x) / 32 * warp_rows; }
};

// What the tiles of one call share.
template <class T>
struct TileCall {
  const T* q;
  int64_t q_token, q_head;
  T* out;
  int64_t out_token, out_head;
  float* lse;  // [heads][T], lse_head apart; may be null
  int64_t lse_head;
  int head_dim, group;
  bool q_aligned, out_aligned;
  ScoreRule rule;
};

template <class T>
bool heads_aligned(const HeadRows& x) {
  return rows_aligned(static_cast<const T*>(x.data), x.token) && rows_aligned(static_cast<const T*>(x.data), x.head);
}

// Of AttentionForwardCuda or PagedAttentionCuda.
template <class T, class Args>
TileCall<T> tile_call(const Args& args, float* lse, int64_t lse_head) {
  return {static_cast<const T*>(args.q.data),
          args.q.token,
          args.q.head,
          static_cast<T*>(args.out.data),
          args.out.token,
          args.out.head,
          lse,
          lse_head,
          static_cast<int>(args.head_dim),
          static_cast<int>(args.heads / args.kv_heads),
          heads_aligned<T>(args.q),
          heads_aligned<T>(args.out),
          score_rule(args.params)};
}

// Rows [first_row, first_row + rows) of a sequence's queries × group. Token first_token of q is the sequence's first
// query and stands at first_position among its keys.
struct Tile {
  int64_t first_token;
  int first_position;
  int first_row, rows;
  int kv_head;
};

// The place of a tile's row r in a tensor [T, heads, D].
template <class T>
__device__ __forceinline__ T* row_address(T* data, int64_t token_stride, int64_t head_stride, const Tile& tile,
                                          int group, int r) {
  const int row = tile.first_row + r;
  return data + (tile.first_token + row / group) * token_stride +
         (int64_t{tile.kv_head} * group + row % group) * head_stride;
}

// Of the warp whose rows are [first, first + count) of the tile's.
__device__ __forceinline__ WarpRows warp_rows(const Tile& tile, int group, int first, int count) {
  WarpRows rows{tile.first_position, group, tile.first_row + first, {1, 0}};
  const int end = first + count < tile.rows ? first + count : tile.rows;
  if (first < end)
    rows.positions = {tile.first_position + rows.first_row / group,
                      tile.first_position + (tile.first_row + end - 1) / group};
  return rows;
}

struct ChunkRange {
  int begin, end;
};
// The chunks in which some row of the tile sees something.
__device__ __forceinline__ ChunkRange chunks_of(const Tile& tile, int group, int window) {
  const int first_position = tile.first_position + tile.first_row / group;
  const int last_position = tile.first_position + (tile.first_row + tile.rows - 1) / group;
  return {window > 0 && first_position >= window ? (first_position + 1 - window) / chunk : 0,
          last_position / chunk + 1};
}

// Brings the tile's queries and each chunk of keys and values into shared memory, and calls
//   consume(chunk, maximum, sum, weights, values)
// for every chunk in which the warp's rows see something. The queries stay where they are.
template <class Shape, class Loader, class Consume>
__device__ __forceinline__ void attend_chunks(const TileCall<typename Shape::T>& call, const Tile& tile,
                                              const ChunkRange& chunks, const Loader& loader, const Consume& consume) {
  auto& memory = *dynamic_shared<typename Shape::Memory>();
  char* room = reinterpret_cast<char*>(&memory + 1) + static_cast<int>(threadIdx.x) / 32 * Shape::Weights::room_bytes;
  load_rows<Shape::threads>(memory.queries, tile.rows, call.head_dim, call.q_aligned,
                            [&](int r) { return row_address(call.q, call.q_token, call.q_head, tile, call.group, r); });

  // Keys and values of a chunk are a step each.
  const int last_position = tile.first_position + (tile.first_row + tile.rows - 1) / call.group;
  const auto load = [&](int step) {
    const int first = (chunks.begin + step / 2) * chunk;
    const int count = last_position + 1 - first < chunk ? last_position + 1 - first : chunk;
    auto& stage = memory.stages[step % Shape::stages];
    step % 2 == 0 ? loader.template keys<Shape::threads>(stage, first, count)
                  : loader.template values<Shape::threads>(stage, first, count);
  };
  // Of chunk c.
  const auto arrived = [&](typename Shape::ChunkTile& stage, int c) {
    if constexpr (requires { loader.template arrived<Shape::threads>(stage, 0); }) {
      const int left = last_position + 1 - c * chunk;
      loader.template arrived<Shape::threads>(stage, left < chunk ? left : chunk);
    }
  };
  const int steps = 2 * (chunks.end - chunks.begin);
  const Pipeline<Shape::stages> pipeline;
  pipeline.start(steps, load);

  const WarpRows rows = warp_rows(tile, call.group, Shape::warp_row(), Shape::warp_rows);
  for (int step = 0; step < steps; step += 2) {
    const int c = chunks.begin + step / 2;
    const bool works = some_seen(rows.positions, chunk_keys(c), call.rule.window);
    pipeline.advance(step, steps, load);
    typename Shape::Scores s;
    if (works) arrived(memory.stages[0], c);
    if (works) multiply_transposed(s, memory.queries, Shape::warp_row(), memory.stages[0], call.head_dim);
    pipeline.advance(step + 1, steps, load);
    if (!works) continue;
    arrived(memory.stages[Shape::stages - 1], c);

    typename Shape::RowState maximum, sum;
    chunk_scores<typename Shape::T>(s, maximum, rows, c, call.rule);
    chunk_weights(s, maximum, sum, call.rule.unit);
    consume(c, maximum, sum, typename Shape::Weights(s, room), memory.stages[Shape::stages - 1]);
  }
}

// Output columns [8 · first, 8 · first + 16) of a chunk by itself.
template <class Shape>
__device__ __forceinline__ Accumulator<Shape::warp_rows, 16> chunk_output(const typename Shape::Weights& weights,
                                                                          const typename Shape::ChunkTile& values,
                                                                          int first) {
  Accumulator<Shape::warp_rows, 16> out;
  multiply_columns(out, 0, weights, values, 8 * first);
  return out;
}

// What attend_tile keeps in registers.
template <class Shape>
struct TileState : RowsState<Shape::warp_rows, Shape::D> {
  __device__ __forceinline__ void merge(const typename Shape::RowState& chunk_maximum,
                                        const typename Shape::RowState& chunk_sum,
                                        const typename Shape::Weights& weights, const typename Shape::ChunkTile& values,
                                        int head_dim) {
    const auto after = this->expect(chunk_maximum, chunk_sum);
    LATHE_UNROLL
    for (int j = 0; j < this->out.n; j += 2) {
      // Nothing lies there; and a branch keeps ptxas from fetching the values of every j at once, which spilled 200 to
      // 400 bytes.
      if (8 * j >= head_dim) break;
      auto chunk_out = chunk_output<Shape>(weights, values, j);
      for_each(chunk_out,
               [&](int i, int column, int e, float element) { this->add(i, j + column, e, element, after); });
    }
  }
};

// The log-sum-exp of the tile's row, where it is wanted.
template <class T>
__device__ __forceinline__ void write_lse(const TileCall<T>& call, const Tile& tile, int row, float maximum,
                                          float sum) {
  if (call.lse == nullptr) return;
  const int64_t at = tile.first_row + row;
  call.lse[(int64_t{tile.kv_head} * call.group + at % call.group) * call.lse_head + tile.first_token +
           at / call.group] = natural_lse(maximum, sum);
}

// The state of the warp whose rows begin at the tile's row `first` becomes the rows' outputs, which go through the
// warp's own rows of `through`, and their lse.
template <class T, class Through, int rows, int columns>
__device__ __forceinline__ void finish_rows(const TileCall<T>& call, const Tile& tile, int first, Through& through,
                                            Accumulator<rows, columns>& out, RowValues<rows>& maximum,
                                            const RowValues<rows>& sum) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for_each_row(maximum, [&](int i, int h, float of_row) {
    const int row = first + i * 16 + h * 8 + lane / 4;
    if (lane % 4 == 0 && row < tile.rows) write_lse(call, tile, row, of_row, sum.at[i][h]);
  });
  RowValues<rows> factor;
  for_each_row(factor, [&](int i, int h, float& of_row) { of_row = final_factor(sum.at[i][h]); });
  for_each(out, [&](int i, int, int e, float& element) { element = fmaf(element, factor.at[i][e / 2], 0.0f); });
  const int own_rows = tile.rows - first < rows ? tile.rows - first : rows;
  store_rows(out, through, first, own_rows, call.head_dim, call.out_aligned,
             [&](int r) { return row_address(call.out, call.out_token, call.out_head, tile, call.group, first + r); });
}

// A tile under all its chunks, and what becomes of it written.
template <class Shape, class Loader>
__device__ __forceinline__ void attend_tile(const TileCall<typename Shape::T>& call, const Tile& tile,
                                            const Loader& loader) {
  TileState<Shape> state;
  attend_chunks<Shape>(call, tile, chunks_of(tile, call.group, call.rule.window), loader,
                       [&](int, const auto& maximum, const auto& sum, const auto& weights, const auto& values) {
                         state.merge(maximum, sum, weights, values, call.head_dim);
                       });

  finish_rows(call, tile, Shape::warp_row(), dynamic_shared<typename Shape::Memory>()->queries, state.out,
              state.maximum, state.sum);
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE::flash
