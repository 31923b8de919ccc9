// Attention of a tile of query rows on a card: chunks of 64 keys one after another, each computed apart and merged in order
// (kernels/attention/attention.h). Shared with paged attention, so that training, prefill and decode give the same bits.
//
// A tile's rows are tokens × the query heads of one kv head, token-major: row r is token r / group, head r % group. So keys and
// values are read once for a group, and one token of a decode is a tile of `group` rows.
//
// What a row's bits depend on: its own query, the keys it sees, and their places in their chunks. In a chunk
//   score   scale · log2 e · (q·k), softcapped, in log2 units: scores go through exp2
//   m, l    the chunk's maximum, and the sum of 2^(score − m): 16 keys to a lane in ascending order, then lanes t ^ 1, t ^ 2
//   o       Σ 2^(score − m) · v over the chunk's keys, the weights rounded to T
// and merging two results takes M = max(m, m'), a = 2^(m − M), b = 2^(m' − M), l·a + l'·b and o·a + o'·b by one fma each. A
// chunk in which a row sees nothing changes no bit of it, so which chunks a warp leaves out does not show.
//
// Another way of storing keys needs
//  - a loader with two functions, called by all threads of the block, that bring `count` ≥ 1 keys or values from position
//    `first` (a chunk's start) as rows of a shared matrix [chunk][pitch<T, D>], zeros after them and beyond head_dim:
//      keys(Shape{}, T* matrix, int first, int count) const;  values(Shape{}, T* matrix, int first, int count) const
//    by cp.async (load_rows does it for any rows that lie somewhere in T) or by plain stores: what follows waits for both.
//    attend_tile() then is the whole kernel (cuda.cu has the shortest).
//  - to compute chunks apart (a split decode): attend_chunks() with chunk_output of each, m, l and o put away, and later
//    merge_factors and merge_output in order, starting from m = −∞, l = 0, o = 0.
#pragma once

#include "kernels/attention/cuda/product.cuh"
#include "kernels/attention/params.h"
#include "kernels/cuda/launch.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE::flash {

inline constexpr int chunk = static_cast<int>(attention_chunk);
inline constexpr int chunk_tiles = chunk / 8;
inline constexpr float nothing = -__builtin_inff();

// How products become scores in log2 units: product · factor, or cap · tanh(product · factor).
struct ScoreRule {
  float factor, cap;
  int window;
};
inline ScoreRule score_rule(const AttentionParams& params) {
  constexpr float log2_e = 1.44269504088896341f;
  const int window = params.window < INT32_MAX ? static_cast<int>(params.window) : 0;
  return params.softcap > 0 ? ScoreRule{params.scale / params.softcap, params.softcap * log2_e, window}
                            : ScoreRule{params.scale * log2_e, 0.0f, window};
}

// tanh is within 2^-22 of 1 for 16-bit queries, whose scores have no more; f32 takes the library's, which is slower by half.
template <class T>
__device__ __forceinline__ float tanh_of(float x) {
  if constexpr (sizeof(T) == 2) return 1.0f - __fdividef(2.0f, 1.0f + exp2_fast(x * 2.88539008177792681f));
  return tanhf(x);
}

// Products → scores. (One branch for all of them: a choice at each takes 20 registers more.)
template <class T, int slabs, int tiles>
__device__ __forceinline__ void score_products(float (&s)[slabs][tiles][4], const ScoreRule& rule) {
  if (rule.cap > 0) {
    for_each(s, [&](int, int, int, float& score) { score = rule.cap * tanh_of<T>(score * rule.factor); });
  } else {
    for_each(s, [&](int, int, int, float& score) { score *= rule.factor; });
  }
}

// Which keys a query at `position` sees; whether some query of a span sees some key of another; whether all see all.
__device__ __forceinline__ bool sees(int position, int key, int window) {
  return key <= position && (window == 0 || key > position - window);
}
struct Span {
  int first, last;  // first > last: empty
};
__device__ __forceinline__ bool some_seen(Span queries, Span keys, int window) {
  return queries.first <= queries.last && keys.first <= keys.last && keys.first <= queries.last &&
         (window == 0 || keys.last > queries.first - window);
}
__device__ __forceinline__ bool all_seen(Span queries, Span keys, int window) {
  return keys.last <= queries.first && (window == 0 || keys.first > queries.last - window);
}
__device__ __forceinline__ Span chunk_keys(int chunk_index) {
  return {chunk_index * chunk, chunk_index * chunk + chunk - 1};
}

// Where a warp's rows stand among the keys: row r of the sequence's queries × group at first_position + r / group.
struct WarpRows {
  int first_position, group;
  int first_row;   // of the warp
  Span positions;  // of its rows that exist

  // Of the lane's row 8 · half + lane / 4 in a slab. Computed when a mask needs it: kept, it cost the registers that spilled.
  __device__ __forceinline__ int position(int slab, int half) const {
    return first_position + (first_row + slab * 16 + half * 8 + static_cast<int>(threadIdx.x) % 32 / 4) / group;
  }
};

// Products q·k → scores, −∞ where unseen, and each row's maximum.
template <class T, int slabs>
__device__ __forceinline__ void chunk_scores(float (&s)[slabs][chunk_tiles][4], float (&maximum)[slabs][2],
                                             const WarpRows& rows, int chunk_index, const ScoreRule& rule) {
  score_products<T>(s, rule);
  if (!all_seen(rows.positions, chunk_keys(chunk_index), rule.window)) {
    const int first_key = chunk_index * chunk + static_cast<int>(threadIdx.x) % 4 * 2;
    int position[slabs][2];
    LATHE_UNROLL
    for (int i = 0; i < slabs; ++i) {
      LATHE_UNROLL
      for (int r = 0; r < 2; ++r) position[i][r] = rows.position(i, r);
    }
    for_each(s, [&](int i, int j, int e, float& score) {
      if (!sees(position[i][e / 2], first_key + j * 8 + e % 2, rule.window)) score = nothing;
    });
  }
  LATHE_UNROLL
  for (int i = 0; i < slabs; ++i) maximum[i][0] = maximum[i][1] = nothing;
  for_each(s, [&](int i, int, int e, float score) { maximum[i][e / 2] = fmaxf(maximum[i][e / 2], score); });
  LATHE_UNROLL
  for (int i = 0; i < slabs; ++i) {
    LATHE_UNROLL
    for (int r = 0; r < 2; ++r) {
      maximum[i][r] = fmaxf(maximum[i][r], __shfl_xor_sync(full_warp, maximum[i][r], 1));
      maximum[i][r] = fmaxf(maximum[i][r], __shfl_xor_sync(full_warp, maximum[i][r], 2));
    }
  }
}

// What is taken from scores below a maximum of −∞: −∞ − 0 and not −∞ − (−∞).
__device__ __forceinline__ float finite_maximum(float maximum) { return maximum == nothing ? 0.0f : maximum; }

// Scores → 2^(score − maximum), 0 where unseen, and each row's sum.
template <int slabs>
__device__ __forceinline__ void chunk_weights(float (&s)[slabs][chunk_tiles][4], const float (&maximum)[slabs][2],
                                              float (&sum)[slabs][2]) {
  float above[slabs][2];
  LATHE_UNROLL
  for (int i = 0; i < slabs; ++i) {
    LATHE_UNROLL
    for (int r = 0; r < 2; ++r) {
      above[i][r] = finite_maximum(maximum[i][r]);
      sum[i][r] = 0.0f;
    }
  }
  for_each(s, [&](int i, int, int e, float& score) {
    score = exp2_fast(score - above[i][e / 2]);
    sum[i][e / 2] += score;
  });
  LATHE_UNROLL
  for (int i = 0; i < slabs; ++i) {
    LATHE_UNROLL
    for (int r = 0; r < 2; ++r) {
      sum[i][r] += __shfl_xor_sync(full_warp, sum[i][r], 1);
      sum[i][r] += __shfl_xor_sync(full_warp, sum[i][r], 2);
    }
  }
}

// Output columns [8 · first, 8 · first + 16) of a chunk by itself.
template <class T, int D, int slabs>
__device__ __forceinline__ void chunk_output(float (&out)[slabs][2][4], const Weights<T, slabs, chunk_tiles>& weights,
                                             const T* values, int first) {
  LATHE_UNROLL
  for (int i = 0; i < slabs; ++i) {
    LATHE_UNROLL
    for (int j = 0; j < 2; ++j) out[i][j][0] = out[i][j][1] = out[i][j][2] = out[i][j][3] = 0.0f;
  }
  multiply_columns<T, D>(out, 0, weights, values + 8 * first);
}

struct MergeFactors {
  float before, after;
};
// Merges the maximum and sum of a chunk into what the chunks before it gave.
__device__ __forceinline__ MergeFactors merge_factors(float& maximum, float& sum, float chunk_maximum,
                                                      float chunk_sum) {
  const float highest = fmaxf(maximum, chunk_maximum), above = finite_maximum(highest);
  const MergeFactors factors{exp2_fast(maximum - above), exp2_fast(chunk_maximum - above)};
  maximum = highest;
  sum = fmaf(sum, factors.before, chunk_sum * factors.after);
  return factors;
}
__device__ __forceinline__ float merge_output(float out, float chunk_out, MergeFactors factors) {
  return fmaf(out, factors.before, chunk_out * factors.after);
}

// What becomes of a row's state: out · final_factor, + 0 so that any zero is +0, and its lse. A row that saw nothing: 0 and −∞.
__device__ __forceinline__ float final_factor(float sum) { return sum == 0.0f ? 0.0f : 1.0f / sum; }
__device__ __forceinline__ float natural_lse(float maximum, float sum) {
  return sum == 0.0f ? nothing : fmaf(maximum, 0.693147180559945309f, logf(sum));
}

// ---- a whole tile ----

// Where a chunk's keys and values lie: each in its place, or the values where the keys were, which leaves nothing to bring
// meanwhile.
enum class Places { two, one };

// `blocks` is what a multiprocessor of sm_80 holds at once.
template <class T_, int head_size, int warps_, int slabs_, int blocks, Places places_ = Places::two>
struct TileShape {
  using T = T_;
  static constexpr int D = head_size, warps = warps_, slabs = slabs_, threads = 32 * warps;
  static constexpr Places places = places_;
  static constexpr int rows = 16 * warps * slabs;
  static constexpr int room = Weights<T, slabs, chunk_tiles>::room;  // floats for a warp
  static constexpr int shared_rows = rows + (places == Places::two ? 2 : 1) * chunk;
  static constexpr int shared_bytes = shared_rows * pitch<T, D> * static_cast<int>(sizeof(T)) + warps * room * 4;
  using Resources = BlockResources<threads, blocks, shared_bytes>;
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

// Rows [first_row, first_row + rows) of a sequence's queries × group. Token first_token of q is the sequence's first query and
// stands at first_position among its keys.
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
//   consume(chunk, maximum [slabs][2], sum [slabs][2], weights, values)
// for every chunk in which the warp's rows see something. Queries are in the first Shape::rows rows, and stay there.
//
// Shared memory: queries, a chunk's keys, its values. With a place for each, keys arrive while the chunk before them meets its values, values while
// their chunk's scores are computed; the other blocks of the multiprocessor cover the rest. (Two chunks of each would leave one
// block to a multiprocessor of sm_80.)
template <class Shape, class Loader, class Consume>
__device__ __forceinline__ void attend_chunks(const TileCall<typename Shape::T>& call, const Tile& tile,
                                              const ChunkRange& chunks, const Loader& loader, const Consume& consume) {
  using T = typename Shape::T;
  constexpr int D = Shape::D, slabs = Shape::slabs, step = pitch<T, D>;
  T* queries = dynamic_shared<T>();
  T* keys = queries + Shape::rows * step;
  T* values = Shape::places == Places::two ? keys + chunk * step : keys;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const T* own_queries = queries + warp * 16 * slabs * step;
  float* own_room = reinterpret_cast<float*>(values + chunk * step) + warp * Shape::room;

  const int last_position = tile.first_position + (tile.first_row + tile.rows - 1) / call.group;
  const auto present = [&](int c) {
    return last_position + 1 - c * chunk < chunk ? last_position + 1 - c * chunk : chunk;
  };

  load_rows<T, D, Shape::rows, Shape::threads>(queries, tile.rows, call.head_dim, call.q_aligned, [&](int r) {
    return row_address(call.q, call.q_token, call.q_head, tile, call.group, r);
  });
  loader.keys(Shape{}, keys, chunks.begin * chunk, present(chunks.begin));
  cp_async_commit();

  const WarpRows rows = warp_rows(tile, call.group, warp * 16 * slabs, 16 * slabs);
  for (int c = chunks.begin; c < chunks.end; ++c) {
    const bool works = some_seen(rows.positions, chunk_keys(c), call.rule.window);
    if constexpr (Shape::places == Places::one) {
      if (c > chunks.begin) {
        __syncthreads();  // all are done with the values before
        loader.keys(Shape{}, keys, c * chunk, present(c));
        cp_async_commit();
      }
    }
    cp_async_wait<0>();
    __syncthreads();  // the keys are there for all, and all are done with the values before
    if constexpr (Shape::places == Places::two) {
      loader.values(Shape{}, values, c * chunk, present(c));
      cp_async_commit();
    }
    float s[slabs][chunk_tiles][4] = {};
    if (works) multiply_rows<T, D>(s, own_queries, keys, call.head_dim);
    if constexpr (Shape::places == Places::one) {
      __syncthreads();  // all are done with the keys
      loader.values(Shape{}, values, c * chunk, present(c));
      cp_async_commit();
    }
    cp_async_wait<0>();
    __syncthreads();  // the values are there for all, and all are done with the keys
    if constexpr (Shape::places == Places::two) {
      if (c + 1 < chunks.end) loader.keys(Shape{}, keys, (c + 1) * chunk, present(c + 1));
      cp_async_commit();
    }
    if (!works) continue;

    float maximum[slabs][2], sum[slabs][2];
    chunk_scores<T>(s, maximum, rows, c, call.rule);
    chunk_weights(s, maximum, sum);
    consume(c, maximum, sum, Weights<T, slabs, chunk_tiles>(s, own_room), values);
  }
}

// A tile under all its chunks, and what becomes of it written.
template <class Shape, class Loader>
__device__ __forceinline__ void attend_tile(const TileCall<typename Shape::T>& call, const Tile& tile,
                                            const Loader& loader) {
  using T = typename Shape::T;
  constexpr int D = Shape::D, slabs = Shape::slabs;
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  float out[slabs][D / 8][4] = {}, maximum[slabs][2], sum[slabs][2] = {};
  LATHE_UNROLL
  for (int i = 0; i < slabs; ++i) maximum[i][0] = maximum[i][1] = nothing;

  const auto merge = [&](int, const float(&chunk_maximum)[slabs][2], const float(&chunk_sum)[slabs][2],
                         const Weights<T, slabs, chunk_tiles>& weights, const T* values) {
    MergeFactors factors[slabs][2];
    LATHE_UNROLL
    for (int i = 0; i < slabs; ++i) {
      LATHE_UNROLL
      for (int r = 0; r < 2; ++r)
        factors[i][r] = merge_factors(maximum[i][r], sum[i][r], chunk_maximum[i][r], chunk_sum[i][r]);
    }
    LATHE_UNROLL
    for (int j = 0; j < D / 8; j += 2) {
      // Nothing lies there; and a branch keeps ptxas from fetching the values of every j at once, which spilled 200 to 400 bytes.
      if (8 * j >= call.head_dim) break;
      float chunk_out[slabs][2][4];
      chunk_output<T, D>(chunk_out, weights, values, j);
      LATHE_UNROLL
      for (int i = 0; i < slabs; ++i) {
        LATHE_UNROLL
        for (int e = 0; e < 8; ++e)
          out[i][j + e / 4][e % 4] =
              merge_output(out[i][j + e / 4][e % 4], chunk_out[i][e / 4][e % 4], factors[i][e % 4 / 2]);
      }
    }
  };
  attend_chunks<Shape>(call, tile, chunks_of(tile, call.group, call.rule.window), loader, merge);

  const int own_rows = tile.rows - warp * 16 * slabs < 16 * slabs ? tile.rows - warp * 16 * slabs : 16 * slabs;
  LATHE_UNROLL
  for (int i = 0; i < slabs; ++i) {
    LATHE_UNROLL
    for (int r = 0; r < 2; ++r) {
      const int row = warp * 16 * slabs + i * 16 + r * 8 + lane / 4;
      if (call.lse != nullptr && lane % 4 == 0 && row < tile.rows) {
        const int64_t at = tile.first_row + row;
        call.lse[(int64_t{tile.kv_head} * call.group + at % call.group) * call.lse_head + tile.first_token +
                 at / call.group] = natural_lse(maximum[i][r], sum[i][r]);
      }
      const float factor = final_factor(sum[i][r]);
      LATHE_UNROLL
      for (int j = 0; j < D / 8; ++j) {
        out[i][j][2 * r] = fmaf(out[i][j][2 * r], factor, 0.0f);
        out[i][j][2 * r + 1] = fmaf(out[i][j][2 * r + 1], factor, 0.0f);
      }
    }
  }
  T* own_queries = dynamic_shared<T>() + warp * 16 * slabs * pitch<T, D>;
  store_rows<T, D>(out, own_queries, own_rows, call.head_dim, call.out_aligned, [&](int r) {
    return row_address(call.out, call.out_token, call.out_head, tile, call.group, warp * 16 * slabs + r);
  });
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE::flash
