// One chunk of 64 keys against one tile of 64 query rows of one head is the unit. The rows lie in the lanes: scores and their gradients are
// made key by key, without a step across lanes, and serve as the factors of three more products, each a continuing chain. grad_k and
// grad_v of a key run over the group's heads, then the rows, ascending; grad_q of a row over its keys, ascending. Where the CPU
// multiplies pairs of bf16 and everything is bf16, the chains go by pairs, and P and dS are rounded to bf16 for it.
#include "kernels/attention/cpu/backward.h"
#include "kernels/attention/cpu/row_lanes.h"

namespace lathe::kernels::LATHE_ISA {
namespace {

constexpr int64_t side = attention_chunk;
static_assert(side == transposed_row);

// Keys and values of a chunk: for products along d, and the keys for the product along keys, where they are the same for single elements.
struct Chunk {
  float *k, *v, *k_along;
};

// A task's scratch, cut up. backward_scratch_floats() counts the same pieces.
struct Scratch {
  const void** rows;                         // [64]
  float *lse, *dots;                         // of a tile's rows [64]; lse in units of log 2
  float *q_turned, *grad_out_turned;         // [padded_dim][64]
  float *q, *grad_out;                       // [64][padded_dim], for the products along rows
  float *p, *ds;                             // [64 keys][64 rows]: products, and then dS for the product along keys
  float *p_along, *ds_along;                 // [64 keys][64 rows], for the products along rows
  float* grad_q;                             // [64][padded_dim]
  float *k, *v, *k_along, *grad_k, *grad_v;  // of one chunk or of all: 64 rows of padded_dim each
  int64_t matrix;                            // 64 · padded_dim

  template <class Step>
  Chunk chunk(int64_t slot) const {
    return {k + slot * matrix, v + slot * matrix, (Step::width == 2 ? k_along : k) + slot * matrix};
  }
};

Scratch cut(const BackwardTask& task) {
  Scratch s;
  s.matrix = side * task.call->padded_dim;
  const int64_t chunks = (task.length + side - 1) / side;
  float* next = task.scratch;
  const auto take = [&next](int64_t floats) {
    float* piece = next;
    next += floats;
    return piece;
  };
  s.rows = reinterpret_cast<const void**>(take(2 * side));
  s.lse = take(side);
  s.dots = take(side);
  for (float** matrix : {&s.q_turned, &s.grad_out_turned, &s.q, &s.grad_out, &s.grad_q}) *matrix = take(s.matrix);
  for (float** square : {&s.p, &s.ds, &s.p_along, &s.ds_along}) *square = take(side * side);
  for (float** keys : {&s.k, &s.v, &s.k_along, &s.grad_k, &s.grad_v}) *keys = take(chunks * s.matrix);
  return s;
}

void fill_zero(float* p, int64_t floats) { __builtin_memset(p, 0, static_cast<size_t>(floats) * sizeof(float)); }

template <class T>
const T* row_of(const HeadRows& x, int64_t token, int64_t head) {
  return static_cast<const T*>(x.data) + token * x.token + head * x.head;
}

template <class T>
void find_rows(const HeadRows& x, int64_t token, int64_t count, int64_t head, const void** rows) {
  for (int64_t i = 0; i < count; ++i) rows[i] = row_of<T>(x, token + i, head);
}

template <class T>
void store_rows(const BackwardCall& call, const HeadRows& x, int64_t token, int64_t count, int64_t head,
                const float* rows, Vec scale) {
  for (int64_t i = 0; i < count; ++i, rows += call.padded_dim) {
    T* row = const_cast<T*>(row_of<T>(x, token + i, head));
    for (int64_t d = 0; d < call.head_dim; d += lanes) {
      const Vec value = load(rows + d) * scale;
      if (d + lanes <= call.head_dim) {
        store(row + d, value);
      } else {
        store_partial(row + d, value, static_cast<int>(call.head_dim - d));
      }
    }
  }
}

// A tile of query rows of one head, and the chunk of keys it meets; token counts within the sequence.
struct Pair {
  int64_t tile, rows, chunk, keys, head;
};

int64_t rows_in(const BackwardTask& task, int64_t tile) { return least(side, task.length - tile * side); }

// [64] from `count` that are there; the last is repeated, as in the rows that were turned over.
void load_numbers(const float* from, int64_t count, Vec factor, float* to) {
  __builtin_memcpy(to, from, static_cast<size_t>(count) * sizeof(float));
  for (int64_t i = count; i < side; ++i) to[i] = to[count - 1];
  for (int64_t i = 0; i < side; i += lanes) store(to + i, load(to + i) * factor);
}

template <class T, class Step>
void load_tile(const BackwardTask& task, const Pair& pair, const Scratch& s) {
  const BackwardCall& call = *task.call;
  const int64_t token = task.start + pair.tile * side;
  find_rows<T>(call.q, token, pair.rows, pair.head, s.rows);
  load_values<T, Step>(s.rows, pair.rows, call.head_dim, call.padded_dim, s.q);
  load_turned<T, Step>(s.rows, pair.rows, call.head_dim, s.q_turned);
  find_rows<T>(call.grad_out, token, pair.rows, pair.head, s.rows);
  load_values<T, Step>(s.rows, pair.rows, call.head_dim, call.padded_dim, s.grad_out);
  load_turned<T, Step>(s.rows, pair.rows, call.head_dim, s.grad_out_turned);
  load_numbers(call.lse + pair.head * call.lse_head + token, pair.rows, splat(log2_e), s.lse);
  load_numbers(call.dots + pair.head * call.tokens + token, pair.rows, splat(1.0f), s.dots);
}

template <class T, class Step>
void load_chunk(const BackwardTask& task, int64_t chunk, const void** rows, const Chunk& to) {
  const BackwardCall& call = *task.call;
  const int64_t token = task.start + chunk * side, count = rows_in(task, chunk);
  find_rows<T>(call.v, token, count, task.kv_head, rows);
  load_keys<T, Step>(rows, count, call.head_dim, to.v);
  find_rows<T>(call.k, token, count, task.kv_head, rows);
  load_keys<T, Step>(rows, count, call.head_dim, to.k);
  if constexpr (Step::width == 2) load_values<T, Step>(rows, count, call.head_dim, call.padded_dim, to.k_along);
}

// Places of one vector of rows, at its first key.
struct Lanes {
  float *p, *ds;              // products q·k and grad_out·v; ds then holds dS / scale for the product along keys
  float *p_along, *ds_along;  // of the first key; `column` is the vector's place in them
  int64_t column;
  Vec lse, dot;
  SpanLanes span;
};

// Keys [0, keys) of one vector of rows, keys even.
template <class Step, bool masked>
void lane_gradients(const BackwardCall& call, const Lanes& at, int64_t keys) {
  const Scoring scoring = scoring_of(call.scale, call.softcap, nullptr, nullptr);
  const bool is_capped = call.softcap > 0;
  for (int64_t key = 0; key < keys; key += 2) {
    Vec ds[2];
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      const int64_t place = (key + i) * side;
      Vec score = load(at.p + place), slope = splat(1.0f);
      if (is_capped) {
        score = score_of(score, scoring);
        const Vec t = score * splat(1.0f / call.softcap);
        slope = slope - t * t;
      }
      Vec p = exp2_below_zero(fma(score, splat(scoring.factor), -at.lse));
      ds[i] = p * (load(at.ds + place) - at.dot);
      if (is_capped) ds[i] = ds[i] * slope;
      if (masked) {
        const VecI seen = at.span.holds(static_cast<int>(key) + i);
        p = select(seen, p, zero());
        ds[i] = select(seen, ds[i], zero());
      }
      Step::store_along(at.p_along + place / Step::width, at.column, p);
      Step::store_along(at.ds_along + place / Step::width, at.column, ds[i]);
    }
    Step::store_weights(at.ds + key / Step::width * side, side, ds[0], ds[1]);
  }
}

KeySpan span_of(const BackwardTask& task, const Pair& pair, int64_t row) {
  return visible_keys(pair.tile * side + row, task.call->window, pair.chunk);
}

// The chunk's keys up to the last that a row of the tile sees, whole vectors of them.
int64_t keys_seen(const BackwardTask& task, const Pair& pair) {
  return whole_vectors(span_of(task, pair, pair.rows - 1).end);
}

// Fills p_along, ds_along and ds for the pair.
template <class Step>
void score_gradients(const BackwardTask& task, const Pair& pair, const Chunk& chunk, const Scratch& s) {
  const BackwardCall& call = *task.call;
  const int64_t keys = keys_seen(task, pair), present = least(keys, pair.keys);
  const auto first_row = [&](int64_t key) { return (pair.chunk - pair.tile) * side + key; };
  multiply_keys<Step>(chunk.k, present, s.q_turned, pair.rows, call.head_dim, first_row, s.p);
  multiply_keys<Step>(chunk.v, present, s.grad_out_turned, pair.rows, call.head_dim, first_row, s.ds);
  for (int64_t row = 0; row < pair.rows; row += lanes) {
    const int64_t last = least(row + lanes, pair.rows) - 1;
    const KeySpan first_span = span_of(task, pair, row), last_span = span_of(task, pair, last);
    const int64_t seen = whole_vectors(last_span.end);
    const bool masked = first_span.end < seen || last_span.begin > 0;
    Lanes at{s.p + row, s.ds + row, s.p_along, s.ds_along, row, load(s.lse + row), load(s.dots + row), {}};
    if (masked) at.span = span_lanes([&](int i) { return span_of(task, pair, least(row + i, last)); });
    masked ? lane_gradients<Step, true>(call, at, seen) : lane_gradients<Step, false>(call, at, seen);
    for (int64_t key = seen; key < keys; ++key) {  // no later product may meet what lay there
      Step::store_along(at.p_along + key * side / Step::width, row, zero());
      Step::store_along(at.ds_along + key * side / Step::width, row, zero());
      if (key % Step::width == 0) store(at.ds + key / Step::width * side, zero());
    }
  }
}

// Continues grad_q of the tile's rows over the chunk's keys.
template <class Step>
void continue_query_gradients(const BackwardTask& task, const Pair& pair, const Chunk& chunk, const Scratch& s) {
  const int64_t dim = task.call->padded_dim;
  for (int64_t row = 0; row < pair.rows;) {
    const int count = next_block(pair.rows - row);
    const int begin = span_of(task, pair, row).begin, end = span_of(task, pair, row + count - 1).end;
    if (begin < end)
      multiply<Chain::continues, Step>(count, Factor{s.ds + row, 1, side}, EvenRows{chunk.k_along, dim},
                                       begin / Step::width, (end + Step::width - 1) / Step::width, s.grad_q + row * dim,
                                       dim, dim);
    row += count;
  }
}

// Continues grad_v and grad_k of the chunk's keys over the tile's rows.
template <class Step>
void continue_key_gradients(const BackwardTask& task, const Pair& pair, const Scratch& s, float* grad_k,
                            float* grad_v) {
  constexpr int64_t row_words = side / Step::width;
  const int64_t dim = task.call->padded_dim, keys = least(keys_seen(task, pair), pair.keys);
  const int64_t end = (pair.rows + Step::width - 1) / Step::width;
  for (int64_t key = 0; key < keys;) {
    const int count = next_block(keys - key);
    // Causality: the rows before the block's first key see none of it.
    const int64_t first = (pair.chunk - pair.tile) * side + key, begin = first > 0 ? first / Step::width : 0;
    if (begin < end) {
      multiply<Chain::continues, Step>(count, Factor{s.p_along + key * row_words, row_words, 1},
                                       EvenRows{s.grad_out, dim}, begin, end, grad_v + key * dim, dim, dim);
      multiply<Chain::continues, Step>(count, Factor{s.ds_along + key * row_words, row_words, 1}, EvenRows{s.q, dim},
                                       begin, end, grad_k + key * dim, dim, dim);
    }
    key += count;
  }
}

// Tiles, from the chunk's own on, that hold a row which sees the chunk.
int64_t tiles_end(const BackwardTask& task, int64_t chunk) {
  int64_t rows = task.length;
  if (task.call->window > 0) rows = least(rows, (chunk + 1) * side + task.call->window - 1);
  return (rows + side - 1) / side;
}

int64_t chunks_begin(const BackwardTask& task, int64_t tile) {
  if (task.call->window == 0) return 0;
  const int64_t first = tile * side + 1 - task.call->window;
  return first > 0 ? first / side : 0;
}

template <class T>
void store_key_gradients(const BackwardTask& task, int64_t chunk, const float* grad_k, const float* grad_v) {
  const BackwardCall& call = *task.call;
  const int64_t token = task.start + chunk * side, keys = rows_in(task, chunk);
  store_rows<T>(call, call.grad_k, token, keys, task.kv_head, grad_k, splat(call.scale));
  store_rows<T>(call, call.grad_v, token, keys, task.kv_head, grad_v, splat(1.0f));
}

template <class T>
void store_query_gradients(const BackwardTask& task, const Pair& pair, const float* grad_q) {
  const BackwardCall& call = *task.call;
  store_rows<T>(call, call.grad_q, task.start + pair.tile * side, pair.rows, pair.head, grad_q, splat(call.scale));
}

// rowsum(grad_out ∘ out) of the kv head's query heads, token by token as they lie in memory.
template <class T>
void row_dots(const BackwardTask& task) {
  const BackwardCall& call = *task.call;
  for (int64_t token = task.start; token < task.start + task.length; ++token) {
    for (int64_t head = task.kv_head * call.group; head < (task.kv_head + 1) * call.group; ++head) {
      const T *a = row_of<T>(call.grad_out, token, head), *b = row_of<T>(call.out, token, head);
      Vec sum = zero();
      int64_t d = 0;
      for (; d + lanes <= call.head_dim; d += lanes) sum = fma(load(a + d), load(b + d), sum);
      const int left = static_cast<int>(call.head_dim - d);
      if (left > 0) sum = fma(load_partial(a + d, left), load_partial(b + d, left), sum);
      call.dots[head * call.tokens + token] = sum_lanes(sum);
    }
  }
}

// Calls body(pair) for the tiles [begin, end) of the group's heads in the order of every sum over them, each loaded.
template <class T, class Step, class Body>
void for_tiles(const BackwardTask& task, int64_t begin, int64_t end, const Scratch& s, Body body) {
  Pair pair{};
  for (int64_t h = 0; h < task.call->group; ++h) {
    pair.head = task.kv_head * task.call->group + h;
    for (pair.tile = begin; pair.tile < end; ++pair.tile) {
      pair.rows = rows_in(task, pair.tile);
      load_tile<T, Step>(task, pair, s);
      body(pair);
    }
  }
}

// grad_q of a tile that is loaded, from the chunks that `chunk_at` gives; `also` sees each pair after its scores.
template <class T, class Step, class ChunkAt, class Also>
void tile_gradients(const BackwardTask& task, Pair pair, const Scratch& s, ChunkAt chunk_at, Also also) {
  fill_zero(s.grad_q, s.matrix);
  for (pair.chunk = chunks_begin(task, pair.tile); pair.chunk <= pair.tile; ++pair.chunk) {
    pair.keys = rows_in(task, pair.chunk);
    const Chunk chunk = chunk_at(pair.chunk);
    score_gradients<Step>(task, pair, chunk, s);
    continue_query_gradients<Step>(task, pair, chunk, s);
    also(pair);
  }
  store_query_gradients<T>(task, pair, s.grad_q);
}

// As in the forward: a sequence's first head brings the rows of all, in the order of memory.
template <class T>
void bring_tokens(const BackwardTask& task) {
  const BackwardCall& call = *task.call;
  const int64_t kv_heads = call.heads / call.group;
  constexpr int64_t size = sizeof(T);
  for (const HeadRows* x : {&call.grad_out, &call.out, &call.q})
    bring_rows<Use::read>(*x, call.heads, call.head_dim, size, task.start, task.length);
  for (const HeadRows* x : {&call.k, &call.v})
    bring_rows<Use::read>(*x, kv_heads, call.head_dim, size, task.start, task.length);
  bring_rows<Use::written>(call.grad_q, call.heads, call.head_dim, size, task.start, task.length);
  for (const HeadRows* x : {&call.grad_k, &call.grad_v})
    bring_rows<Use::written>(*x, kv_heads, call.head_dim, size, task.start, task.length);
}

template <class T, class Step>
void gradients(const BackwardTask& task) {
  const int64_t chunks = (task.length + side - 1) / side;
  const Scratch s = cut(task);
  if (task.kv_head == 0) bring_tokens<T>(task);
  row_dots<T>(task);  // here, because it leaves grad_out in the cache
  for (int64_t chunk = 0; chunk < chunks; ++chunk) load_chunk<T, Step>(task, chunk, s.rows, s.chunk<Step>(chunk));
  fill_zero(s.grad_k, chunks * s.matrix);
  fill_zero(s.grad_v, chunks * s.matrix);
  for_tiles<T, Step>(task, 0, chunks, s, [&](const Pair& tile) {
    tile_gradients<T, Step>(
        task, tile, s, [&](int64_t chunk) { return s.chunk<Step>(chunk); },
        [&](const Pair& pair) {
          continue_key_gradients<Step>(task, pair, s, s.grad_k + pair.chunk * s.matrix,
                                       s.grad_v + pair.chunk * s.matrix);
        });
  });
  for (int64_t chunk = 0; chunk < chunks; ++chunk)
    store_key_gradients<T>(task, chunk, s.grad_k + chunk * s.matrix, s.grad_v + chunk * s.matrix);
}

template <class T, class Step>
void key_gradients(const BackwardTask& task) {
  const Scratch s = cut(task);
  for (int64_t chunk = task.begin; chunk < task.end; ++chunk) {
    load_chunk<T, Step>(task, chunk, s.rows, s.chunk<Step>(0));
    fill_zero(s.grad_k, s.matrix);
    fill_zero(s.grad_v, s.matrix);
    for_tiles<T, Step>(task, chunk, tiles_end(task, chunk), s, [&](Pair pair) {
      pair.chunk = chunk;
      pair.keys = rows_in(task, chunk);
      score_gradients<Step>(task, pair, s.chunk<Step>(0), s);
      continue_key_gradients<Step>(task, pair, s, s.grad_k, s.grad_v);
    });
    store_key_gradients<T>(task, chunk, s.grad_k, s.grad_v);
  }
}

template <class T, class Step>
void query_gradients(const BackwardTask& task) {
  const Scratch s = cut(task);
  for_tiles<T, Step>(task, task.begin, task.end, s, [&](const Pair& tile) {
    const auto loaded = [&](int64_t chunk) {
      load_chunk<T, Step>(task, chunk, s.rows, s.chunk<Step>(0));
      return s.chunk<Step>(0);
    };
    tile_gradients<T, Step>(task, tile, s, loaded, [](const Pair&) {});
  });
}

template <class Body>
void with_types(const BackwardCall& call, Body body) {
  with_products(call.dtype, call.dtype, call.head_dim, body);
}

}  // namespace

void attention_row_dots(const BackwardTask& task) {
  with_element(task.call->dtype, [&](auto element) { row_dots<decltype(element)>(task); });
}
void attention_gradients(const BackwardTask& task) {
  with_types(*task.call, [&](auto element, auto step) { gradients<decltype(element), decltype(step)>(task); });
}
void attention_key_gradients(const BackwardTask& task) {
  with_types(*task.call, [&](auto element, auto step) { key_gradients<decltype(element), decltype(step)>(task); });
}
void attention_query_gradients(const BackwardTask& task) {
  with_types(*task.call, [&](auto element, auto step) { query_gradients<decltype(element), decltype(step)>(task); });
}

}  // namespace lathe::kernels::LATHE_ISA
