// attention_backward in three kernels: D = rowsum(grad_out ∘ out); grad_k and grad_v, a block for each tile of keys and kv head,
// over the heads of its group, then the queries, ascending; grad_q, a block for each tile of queries and head, over its keys.
// Scores are computed twice, which makes seven products of five, and no sum needs an atomic or a buffer of partial sums.
//
// Both passes have one shape. A warp owns 16 · slabs rows of two matrices (keys and values; queries and grad_out), the others
// pass by in steps, two in flight. Products with the warp's own rows on the left leave scores and their gradients in the
// registers where the next product wants its left operand: nothing but rows of inputs goes through shared memory.
#include "kernels/attention/cuda/arguments.h"
#include "kernels/attention/cuda/sequences.cuh"
#include "kernels/attention/cuda/tile.cuh"
#include "kernels/cuda/element.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

using namespace flash;

template <class T>
struct Rows {
  T* data;
  int64_t token, head;
  bool aligned;

  __device__ __forceinline__ T* at(int64_t token_index, int64_t head_index) const {
    return data + token_index * token + head_index * head;
  }
};

template <class T>
struct Backward {
  Rows<T> grad_q, grad_k, grad_v;
  Rows<const T> grad_out, q, k, v, out;
  const float* lse;
  int64_t lse_head;
  float* dots;
  int64_t tokens;
  int heads, kv_heads, group, head_dim;
  ScoreRule rule;
  float scale;
};

// Warps, slabs of 16 rows that each owns, and rows that pass by at a time. `apart`: grad_k and grad_v one after the other,
// because their sums do not fit a thread's registers together; that computes the scores a third time.
template <class T_, int head_size, int warps_, int slabs_, int step_, int blocks, bool apart_ = false>
struct BackwardShape {
  using T = T_;
  static constexpr int D = head_size, warps = warps_, slabs = slabs_, step = step_;
  [[maybe_unused]] static constexpr bool apart = apart_;
  static constexpr int threads = 32 * warps, own = 16 * warps * slabs, tiles = step / 8;
  static constexpr int stages = 2;
  static constexpr int room = Weights<T, slabs, tiles>::room;  // floats for a warp
  static constexpr int shared_bytes =
      (2 * own + stages * 2 * step) * pitch<T, D> * static_cast<int>(sizeof(T)) + warps * room * 4;
  using Resources = BlockResources<threads, blocks, shared_bytes>;
};

// Shared memory: both own matrices, then stages of both passing ones, then what Weights needs.
template <class Shape>
struct Memory {
  using T = typename Shape::T;
  static constexpr int pitch = flash::pitch<T, Shape::D>;
  T* own[2];
  T* stages;
  float* room;  // of the warp

  __device__ __forceinline__ Memory() {
    own[0] = dynamic_shared<T>();
    own[1] = own[0] + Shape::own * pitch;
    stages = own[1] + Shape::own * pitch;
    room = reinterpret_cast<float*>(stages + Shape::stages * 2 * Shape::step * pitch) +
           static_cast<int>(threadIdx.x) / 32 * Shape::room;
  }
  __device__ __forceinline__ T* own_of_warp(int which) const {
    return own[which] + static_cast<int>(threadIdx.x) / 32 * 16 * Shape::slabs * pitch;
  }
  __device__ __forceinline__ T* passing(int number, int which) const {
    return stages + (number % Shape::stages * 2 + which) * Shape::step * pitch;
  }
};

constexpr float log2_e = 1.44269504088896341f;

// What a query's row brings to its scores: lse in log2 units and D.
struct RowTerms {
  float lse, dot;
};
template <class T>
__device__ __forceinline__ RowTerms row_terms(const Backward<T>& a, int64_t token, int64_t head) {
  return {a.lse[head * a.lse_head + token] * log2_e, a.dots[head * a.tokens + token]};
}

// Products q·k in s and grad_out·v in ds become P and dS / scale. terms(i, j, e) are the query's, seen(i, j, e) says whether it
// sees the key; not asked where all do.
template <class T, int slabs, int tiles, class Terms, class Seen>
__device__ __forceinline__ void score_gradients(float (&s)[slabs][tiles][4], float (&ds)[slabs][tiles][4],
                                                const ScoreRule& rule, bool all, Terms terms, Seen seen) {
  if (rule.cap > 0) {
    for_each(s, [&](int i, int j, int e, float& score) {
      const float t = tanh_of<T>(score * rule.factor);
      score = rule.cap * t;
      ds[i][j][e] = (ds[i][j][e] - terms(i, j, e).dot) * fmaf(-t, t, 1.0f);
    });
  } else {
    for_each(s, [&](int i, int j, int e, float& score) {
      score *= rule.factor;
      ds[i][j][e] -= terms(i, j, e).dot;
    });
  }
  for_each(s, [&](int i, int j, int e, float& p) { p = exp2_fast(p - terms(i, j, e).lse); });
  if (!all) {
    for_each(s, [&](int i, int j, int e, float& p) {
      if (!seen(i, j, e)) p = 0.0f;
    });
  }
  for_each(s, [&](int i, int j, int e, float p) { ds[i][j][e] *= p; });
}

// sums += scores, rounded to T, · passing
template <class Shape, class T>
__device__ __forceinline__ void add_weighted(float (&sums)[Shape::slabs][Shape::D / 8][4],
                                             const float (&scores)[Shape::slabs][Shape::tiles][4],
                                             const Memory<Shape>& memory, const T* passing, int head_dim) {
  const Weights<T, Shape::slabs, Shape::tiles> weights(scores, memory.room);
  LATHE_UNROLL
  for (int j = 0; j < Shape::D / 8; j += 2) {
    if (8 * j >= head_dim) break;
    multiply_columns<T, Shape::D>(sums, j, weights, passing + 8 * j);
  }
}

template <class Shape, class T>
__device__ __forceinline__ void load_own(T* matrix, const Rows<const T>& rows, int64_t token, int64_t head, int count,
                                         int head_dim) {
  load_rows<T, Shape::D, Shape::own, Shape::threads>(matrix, count, head_dim, rows.aligned,
                                                     [&](int r) { return rows.at(token + r, head); });
}
template <class Shape, class T>
__device__ __forceinline__ void load_passing(T* matrix, const Rows<const T>& rows, int64_t token, int64_t head,
                                             int count, int head_dim) {
  load_rows<T, Shape::D, Shape::step, Shape::threads>(matrix, count, head_dim, rows.aligned,
                                                      [&](int r) { return rows.at(token + r, head); });
}

template <class Shape, class T>
__device__ __forceinline__ void store_own(const Memory<Shape>& memory, int through,
                                          float (&sums)[Shape::slabs][Shape::D / 8][4], float scale,
                                          const Rows<T>& rows, int64_t token, int64_t head, int count, int head_dim) {
  for_each(sums, [&](int, int, int, float& sum) { sum *= scale; });
  store_rows<T, Shape::D>(sums, memory.own_of_warp(through), count, head_dim, rows.aligned,
                          [&](int r) { return rows.at(token + r, head); });
}

// The part of [first, first + Shape::own) that is the warp's, as far as the sequence goes.
template <class Shape>
__device__ __forceinline__ Span warp_span(int first, int length) {
  const int begin = first + static_cast<int>(threadIdx.x) / 32 * 16 * Shape::slabs, end = begin + 16 * Shape::slabs;
  return {begin, (end < length ? end : length) - 1};
}

// ---- grad_k, grad_v ----

enum class Wanted { both, keys, values };

// lse and D of a passing query lie after its elements, where rows are padded.
template <class Shape>
__device__ __forceinline__ void* terms_of(typename Shape::T* queries, int row) {
  return queries + row * Memory<Shape>::pitch + Shape::D;
}

template <class Shape, Wanted wanted>
__device__ __forceinline__ void key_gradients(const Backward<typename Shape::T>& a, const SequencePiece& piece,
                                              int kv_head) {
  using T = typename Shape::T;
  constexpr int D = Shape::D, slabs = Shape::slabs, tiles = Shape::tiles, step = Shape::step;
  constexpr bool keys_wanted = wanted != Wanted::values, values_wanted = wanted != Wanted::keys;
  const Memory<Shape> memory;
  const int lane = static_cast<int>(threadIdx.x) % 32, window = a.rule.window;
  const int first_key = piece.index * Shape::own;
  const Span own = warp_span<Shape>(first_key, piece.length);

  // The queries that see some of the block's keys, in steps counted from the sequence's start.
  const int last_key = (first_key + Shape::own < piece.length ? first_key + Shape::own : piece.length) - 1;
  const int last_query = window > 0 && window < piece.length - last_key ? last_key + window - 1 : piece.length - 1;
  const int first_step = first_key / step, steps = last_query / step - first_step + 1;
  const auto load = [&](int n) {
    const int first = (first_step + n % steps) * step, head = kv_head * a.group + n / steps;
    const int count = piece.length - first < step ? piece.length - first : step;
    load_passing<Shape>(memory.passing(n, 0), a.q, piece.start + first, head, count, a.head_dim);
    load_passing<Shape>(memory.passing(n, 1), a.grad_out, piece.start + first, head, count, a.head_dim);
    for (int r = static_cast<int>(threadIdx.x); r < step; r += Shape::threads) {
      // A query that is not there sees nothing: 2^(0 − ∞).
      const RowTerms terms = r < count ? row_terms(a, piece.start + first + r, head) : RowTerms{-nothing, 0.0f};
      store_vector<float2>(terms_of<Shape>(memory.passing(n, 0), r), make_float2(terms.lse, terms.dot));
    }
    cp_async_commit();
  };

  float grad_k[slabs][keys_wanted ? D / 8 : 1][4] = {}, grad_v[slabs][values_wanted ? D / 8 : 1][4] = {};
  load(0);
  for (int n = 0; n < a.group * steps; ++n) {
    cp_async_wait<0>();
    __syncthreads();  // this step's rows are there for all, and all are done with the step before
    if (n + 1 < a.group * steps) load(n + 1);
    const int first = (first_step + n % steps) * step;
    const Span passing{first, first + step - 1};
    if (!some_seen(passing, own, window)) continue;

    T *queries = memory.passing(n, 0), *grad_out = memory.passing(n, 1);
    float s[slabs][tiles][4] = {}, ds[slabs][tiles][4] = {};
    multiply_rows<T, D>(s, memory.own_of_warp(0), queries, a.head_dim);
    if constexpr (keys_wanted) multiply_rows<T, D>(ds, memory.own_of_warp(1), grad_out, a.head_dim);
    const auto terms = [&](int, int j, int e) {
      const float2 both = load_vector<float2>(terms_of<Shape>(queries, j * 8 + lane % 4 * 2 + e % 2));
      return RowTerms{both.x, both.y};
    };
    const auto seen = [&](int i, int j, int e) {
      return sees(first + j * 8 + lane % 4 * 2 + e % 2, own.first + i * 16 + lane / 4 + e / 2 * 8, window);
    };
    score_gradients<T>(s, ds, a.rule, all_seen(passing, own, window), terms, seen);
    if constexpr (values_wanted) add_weighted<Shape>(grad_v, s, memory, grad_out, a.head_dim);
    if constexpr (keys_wanted) add_weighted<Shape>(grad_k, ds, memory, queries, a.head_dim);
  }

  // Through the warp's own rows, which no other warp reads; keys are needed again for grad_v.
  const int64_t token = piece.start + own.first;
  const int count = own.last - own.first + 1;
  if constexpr (keys_wanted) store_own<Shape>(memory, 1, grad_k, a.scale, a.grad_k, token, kv_head, count, a.head_dim);
  if constexpr (values_wanted) store_own<Shape>(memory, 0, grad_v, 1.0f, a.grad_v, token, kv_head, count, a.head_dim);
}

template <class Shape, class Resources = typename Shape::Resources>
__global__ void __launch_bounds__(Resources::threads, Resources::blocks)
    attention_key_gradient_kernel(Resources, Backward<typename Shape::T> a, Sequences sequences) {
  const int block = static_cast<int>(blockIdx.x), kv_head = block % a.kv_heads;
  const SequencePiece piece =
      find_piece(sequences, block / a.kv_heads);  // a sequence's first keys are seen by most: they come first
  const Memory<Shape> memory;
  const int first = piece.index * Shape::own, left = piece.length - first;
  load_own<Shape>(memory.own[0], a.k, piece.start + first, kv_head, left, a.head_dim);
  load_own<Shape>(memory.own[1], a.v, piece.start + first, kv_head, left, a.head_dim);
  if constexpr (Shape::apart) {
    key_gradients<Shape, Wanted::keys>(a, piece, kv_head);
    __syncthreads();  // all are done with the queries of the last steps
    key_gradients<Shape, Wanted::values>(a, piece, kv_head);
  } else {
    key_gradients<Shape, Wanted::both>(a, piece, kv_head);
  }
}

// ---- grad_q ----

template <class Shape, class Resources = typename Shape::Resources>
__global__ void __launch_bounds__(Resources::threads, Resources::blocks)
    attention_query_gradient_kernel(Resources, Backward<typename Shape::T> a, Sequences sequences) {
  using T = typename Shape::T;
  constexpr int D = Shape::D, slabs = Shape::slabs, tiles = Shape::tiles, step = Shape::step;
  const int block = static_cast<int>(blockIdx.x), head = block % a.heads, kv_head = head / a.group;
  const SequencePiece piece = find_piece(sequences, sequences.pieces() - 1 - block / a.heads);  // the last see most
  const Memory<Shape> memory;
  const int lane = static_cast<int>(threadIdx.x) % 32, window = a.rule.window;
  const int first_query = piece.index * Shape::own, left = piece.length - first_query;
  const Span own = warp_span<Shape>(first_query, piece.length);

  const int first_key = window > 0 && first_query >= window ? first_query + 1 - window : 0;
  const int first_step = first_key / step;
  const int last_key = (first_query + Shape::own < piece.length ? first_query + Shape::own : piece.length) - 1;
  const int steps = last_key / step - first_step + 1;
  const auto load = [&](int n) {
    const int first = (first_step + n) * step, count = last_key + 1 - first < step ? last_key + 1 - first : step;
    load_passing<Shape>(memory.passing(n, 0), a.k, piece.start + first, kv_head, count, a.head_dim);
    load_passing<Shape>(memory.passing(n, 1), a.v, piece.start + first, kv_head, count, a.head_dim);
    cp_async_commit();
  };
  load_own<Shape>(memory.own[0], a.q, piece.start + first_query, head, left, a.head_dim);
  load_own<Shape>(memory.own[1], a.grad_out, piece.start + first_query, head, left, a.head_dim);
  load(0);

  RowTerms own_terms[slabs][2];
  LATHE_UNROLL
  for (int i = 0; i < slabs; ++i) {
    LATHE_UNROLL
    for (int r = 0; r < 2; ++r) {
      const int query = own.first + i * 16 + r * 8 + lane / 4;
      own_terms[i][r] = query < piece.length ? row_terms(a, piece.start + query, head) : RowTerms{-nothing, 0.0f};
    }
  }
  float grad_q[slabs][D / 8][4] = {};
  for (int n = 0; n < steps; ++n) {
    cp_async_wait<0>();
    __syncthreads();  // this step's rows are there for all, and all are done with the step before
    if (n + 1 < steps) load(n + 1);
    const int first = (first_step + n) * step;
    const Span passing{first, first + step - 1};
    if (!some_seen(own, passing, window)) continue;

    const T *keys = memory.passing(n, 0), *values = memory.passing(n, 1);
    float s[slabs][tiles][4] = {}, ds[slabs][tiles][4] = {};
    multiply_rows<T, D>(s, memory.own_of_warp(0), keys, a.head_dim);
    multiply_rows<T, D>(ds, memory.own_of_warp(1), values, a.head_dim);
    const auto terms = [&](int i, int, int e) { return own_terms[i][e / 2]; };
    const auto seen = [&](int i, int j, int e) {
      return sees(own.first + i * 16 + lane / 4 + e / 2 * 8, first + j * 8 + lane % 4 * 2 + e % 2, window);
    };
    score_gradients<T>(s, ds, a.rule, all_seen(own, passing, window), terms, seen);
    add_weighted<Shape>(grad_q, ds, memory, keys, a.head_dim);
  }
  store_own<Shape>(memory, 0, grad_q, a.scale, a.grad_q, piece.start + own.first, head, own.last - own.first + 1,
                   a.head_dim);
}

// ---- D ----

constexpr int dot_warps = 4;

// A warp for each token and head.
template <class T>
__global__ void __launch_bounds__(dot_warps * 32) attention_row_dots_kernel(Backward<T> a, bool aligned) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t row = int64_t{blockIdx.x} * dot_warps + threadIdx.x / 32;
  if (row >= a.tokens * a.heads) return;
  const int64_t token = row / a.heads, head = row % a.heads;
  const T *grad_out = a.grad_out.at(token, head), *out = a.out.at(token, head);
  float sum = 0.0f;
  for (int i = lane * group_elements; i < a.head_dim; i += 32 * group_elements) {
    const int count = a.head_dim - i < group_elements ? a.head_dim - i : group_elements;
    const Group x = aligned ? load_group<true>(grad_out + i, count) : load_group<false>(grad_out + i, count);
    const Group y = aligned ? load_group<true>(out + i, count) : load_group<false>(out + i, count);
    LATHE_UNROLL
    for (int j = 0; j < group_elements; ++j) sum = fmaf(x.at[j], y.at[j], sum);
  }
  sum = warp_sum(sum);
  if (lane == 0) a.dots[head * a.tokens + token] = sum;
}

// ---- launches ----

template <class Element>
Rows<Element> rows_of(const HeadRows& x) {
  return {static_cast<Element*>(x.data), x.token, x.head, heads_aligned<Element>(x)};
}

template <class Keys, class Queries>
void backward(const AttentionBackwardCuda& args) {
  using T = typename Keys::T;
  Backward<T> a{};
  a.grad_q = rows_of<T>(args.grad_q), a.grad_k = rows_of<T>(args.grad_k), a.grad_v = rows_of<T>(args.grad_v);
  a.grad_out = rows_of<const T>(args.grad_out), a.out = rows_of<const T>(args.out);
  a.q = rows_of<const T>(args.q), a.k = rows_of<const T>(args.k), a.v = rows_of<const T>(args.v);
  a.lse = args.lse, a.lse_head = args.lse_head, a.dots = args.dots, a.tokens = args.tokens;
  a.heads = static_cast<int>(args.heads), a.kv_heads = static_cast<int>(args.kv_heads), a.group = a.heads / a.kv_heads;
  a.head_dim = static_cast<int>(args.head_dim);
  a.rule = score_rule(args.params);
  a.scale = args.params.scale;

  launch({.name = "attention_row_dots",
          .grid = dim3(static_cast<unsigned>((a.tokens * a.heads + dot_warps - 1) / dot_warps)),
          .block = dim3(dot_warps * 32)},
         attention_row_dots_kernel<T>, a, a.grad_out.aligned && a.out.aligned);
  const auto pieces = [](int own) { return [own](int length) { return (length + own - 1) / own; }; };
  for_each_launch(args.cu_seqlens, args.sequences, pieces(Keys::own), [&](const Sequences& sequences) {
    launch("attention_key_gradient", dim3(static_cast<unsigned>(sequences.pieces() * a.kv_heads)),
           attention_key_gradient_kernel<Keys>, a, sequences);
  });
  for_each_launch(args.cu_seqlens, args.sequences, pieces(Queries::own), [&](const Sequences& sequences) {
    launch("attention_query_gradient", dim3(static_cast<unsigned>(sequences.pieces() * a.heads)),
           attention_query_gradient_kernel<Queries>, a, sequences);
  });
}

// All instances; head sizes between them take the next one's. f32 above D = 64 is for correctness, not for speed. What nvcc makes
// of them stands in kernels/cuda/resources.txt.
template <class T>
void choose(const AttentionBackwardCuda& args) {
  if (args.head_dim <= 64) return backward<BackwardShape<T, 64, 4, 2, 32, 2>, BackwardShape<T, 64, 4, 2, 32, 2>>(args);
  if (args.head_dim <= 96) return backward<BackwardShape<T, 96, 4, 1, 32, 2>, BackwardShape<T, 96, 4, 1, 32, 2>>(args);
  if (args.head_dim <= 128)
    return backward<BackwardShape<T, 128, 4, 1, 32, 2>, BackwardShape<T, 128, 4, 1, 32, 2>>(args);
  return backward<BackwardShape<T, 256, 4, 1, 16, 1, true>, BackwardShape<T, 256, 4, 1, 16, 1>>(args);
}
template <>
void choose<float>(const AttentionBackwardCuda& args) {
  if (args.head_dim <= 64)
    return backward<BackwardShape<float, 64, 4, 1, 32, 2>, BackwardShape<float, 64, 4, 1, 32, 2>>(args);
  if (args.head_dim <= 128)
    return backward<BackwardShape<float, 128, 2, 1, 16, 2>, BackwardShape<float, 128, 2, 1, 16, 2>>(args);
  return backward<BackwardShape<float, 256, 1, 1, 16, 1, true>, BackwardShape<float, 256, 1, 1, 16, 1>>(args);
}

}  // namespace

void attention_backward_tiles(const AttentionBackwardCuda& args) {
  with_element(args.dtype, [&]<class T>(T) { choose<T>(args); });
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
