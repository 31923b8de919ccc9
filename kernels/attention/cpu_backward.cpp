// One chunk of 64 keys against one tile of 64 query rows of one head is the unit: scores and their gradients through
// scratch, then five products, each a continuing chain of fma. grad_k and grad_v of a chunk run over the group's
// heads, then the rows, ascending; grad_q of a row over its keys, ascending.
#include "kernels/attention/backward.h"
#include "kernels/attention/chunk.h"
#include "kernels/attention/transposed_rows.h"

namespace lathe::kernels::LATHE_ISA {
namespace {

constexpr int64_t side = attention_chunk;

struct Scratch {
  float *k, *k_transposed, *v_transposed, *grad_k, *grad_v;  // of a chunk of keys
  float *q, *grad_out, *lse, *dots;                          // of a tile of queries
  float *p, *ds;                                             // [64][64]
  const void** rows;
  float* grad_q;
};

Scratch cut(const BackwardTask& task) {
  const int64_t matrix = side * task.call->padded_dim;
  float* next = task.scratch;
  const auto take = [&next](int64_t floats) {
    float* piece = next;
    next += floats;
    return piece;
  };
  Scratch s;
  s.rows = reinterpret_cast<const void**>(take(2 * side));
  s.lse = take(side);
  s.dots = take(side);
  s.k = take(matrix);
  s.k_transposed = take(matrix);
  s.v_transposed = take(matrix);
  s.grad_k = take(matrix);
  s.grad_v = take(matrix);
  s.q = take(matrix);
  s.grad_out = take(matrix);
  s.p = take(side * side);
  s.ds = take(side * side);
  s.grad_q = next;
  return s;
}

void fill_zero(float* p, int64_t floats) { __builtin_memset(p, 0, static_cast<size_t>(floats) * sizeof(float)); }

template <class T>
const T* row_of(const HeadRows& x, int64_t token, int64_t head) {
  return static_cast<const T*>(x.data) + token * x.token + head * x.head;
}

template <class T>
void load_rows(const BackwardCall& call, const HeadRows& x, int64_t token, int64_t count, int64_t head, float* out) {
  for (int64_t i = 0; i < count; ++i, out += call.padded_dim)
    load_padded(row_of<T>(x, token + i, head), call.head_dim, call.padded_dim, out);
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

template <class T>
void transpose_keys(const BackwardCall& call, const HeadRows& x, int64_t token, int64_t count, int64_t head,
                    const void** rows, float* out) {
  for (int64_t i = 0; i < count; ++i) rows[i] = row_of<T>(x, token + i, head);
  repeat_last_row(rows, count);
  NothingAhead nothing;
  transpose_rows<T>(rows, count, call.head_dim, out, nothing);
}

// A tile of query rows of one head, and the chunk of keys it meets; token counts within the sequence.
struct Pair {
  int64_t tile, rows, chunk, keys, head;
};

int64_t rows_in(const BackwardTask& task, int64_t tile) { return least(side, task.length - tile * side); }

template <class T>
void load_tile(const BackwardTask& task, const Pair& pair, const Scratch& s) {
  const BackwardCall& call = *task.call;
  const int64_t token = task.start + pair.tile * side;
  load_rows<T>(call, call.q, token, pair.rows, pair.head, s.q);
  load_rows<T>(call, call.grad_out, token, pair.rows, pair.head, s.grad_out);
  const size_t bytes = static_cast<size_t>(pair.rows) * sizeof(float);
  __builtin_memcpy(s.lse, call.lse + pair.head * call.lse_head + token, bytes);
  __builtin_memcpy(s.dots, call.dots + pair.head * call.tokens + token, bytes);
}

template <class T>
void load_chunk(const BackwardTask& task, const Pair& pair, const Scratch& s) {
  const BackwardCall& call = *task.call;
  const int64_t token = task.start + pair.chunk * side;
  load_rows<T>(call, call.k, token, pair.keys, task.kv_head, s.k);
  transpose_keys<T>(call, call.k, token, pair.keys, task.kv_head, s.rows, s.k_transposed);
  transpose_keys<T>(call, call.v, token, pair.keys, task.kv_head, s.rows, s.v_transposed);
}

// q·k in p and grad_out·v in ds become P and dS / scale, 0 where masked.
LATHE_INLINE void row_gradients(const BackwardCall& call, KeySpan span, float lse, float dot, int vectors, float* p,
                                float* ds) {
  const VecI lane = first_lanes();
  for (int v = 0; v < vectors; ++v) {
    Vec score = load(p + v * lanes) * splat(call.scale);
    Vec slope = splat(1.0f);
    if (call.softcap > 0) {
      const Vec t = tanh(score * splat(1.0f / call.softcap));
      score = splat(call.softcap) * t;
      slope = splat(1.0f) - t * t;
    }
    const VecI seen = in_span(span, v, lane);
    const Vec probability = exp2_below_zero((score - splat(lse)) * splat(log2_e));
    const Vec gradient = probability * (load(ds + v * lanes) - splat(dot)) * slope;
    store(p + v * lanes, select(seen, probability, zero()));
    store(ds + v * lanes, select(seen, gradient, zero()));
  }
  for (int v = vectors; v < side / lanes; ++v) {
    store(p + v * lanes, zero());
    store(ds + v * lanes, zero());
  }
}

// Fills p and ds for the pair, and continues grad_q of the tile's rows where it is wanted.
void score_gradients(const BackwardTask& task, const Pair& pair, const Scratch& s, float* grad_q) {
  const BackwardCall& call = *task.call;
  const int64_t dim = call.padded_dim;
  for (int64_t row = 0; row < pair.rows;) {
    const int count = next_block(pair.rows - row);
    const int64_t position = pair.tile * side + row;
    const KeySpan first = visible_keys(position, call.window, pair.chunk);
    const int end = visible_keys(position + count - 1, call.window, pair.chunk).end;
    const int vectors = first.begin < end ? (end + lanes - 1) / lanes : 0;
    float *p = s.p + row * side, *ds = s.ds + row * side;
    if (vectors > 0) {
      multiply<Chain::starts>(count, Factor{s.q + row * dim, dim, 1}, EvenRows{s.k_transposed, side}, 0, call.head_dim,
                              p, side, vectors * lanes);
      multiply<Chain::starts>(count, Factor{s.grad_out + row * dim, dim, 1}, EvenRows{s.v_transposed, side}, 0,
                              call.head_dim, ds, side, vectors * lanes);
    }
    for (int r = 0; r < count; ++r)
      row_gradients(call, visible_keys(position + r, call.window, pair.chunk), s.lse[row + r], s.dots[row + r], vectors,
                    p + r * side, ds + r * side);
    if (grad_q != nullptr && vectors > 0)
      multiply<Chain::continues>(count, Factor{ds, side, 1}, EvenRows{s.k, dim}, first.begin, end, grad_q + row * dim,
                                 dim, dim);
    row += count;
  }
}

// Continues grad_v and grad_k of the chunk's keys over the tile's rows.
void continue_key_gradients(const BackwardTask& task, const Pair& pair, const Scratch& s) {
  const int64_t dim = task.call->padded_dim;
  for (int64_t key = 0; key < pair.keys;) {
    const int count = next_block(pair.keys - key);
    // Causality: the rows before the block's first key see none of it.
    const int64_t first = (pair.chunk - pair.tile) * side + key;
    const int64_t row = first > 0 ? first : 0;
    if (row < pair.rows) {
      multiply<Chain::continues>(count, Factor{s.p + key, 1, side}, EvenRows{s.grad_out, dim}, row, pair.rows,
                                 s.grad_v + key * dim, dim, dim);
      multiply<Chain::continues>(count, Factor{s.ds + key, 1, side}, EvenRows{s.q, dim}, row, pair.rows,
                                 s.grad_k + key * dim, dim, dim);
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

// grad_k and grad_v of one chunk; grad_q [group][padded length][padded_dim] continued on the way where it is wanted.
template <class T>
void chunk_gradients(const BackwardTask& task, int64_t chunk, const Scratch& s, float* grad_q) {
  const BackwardCall& call = *task.call;
  const int64_t dim = call.padded_dim, padded_length = (task.length + side - 1) / side * side;
  Pair pair{0, 0, chunk, rows_in(task, chunk), 0};
  load_chunk<T>(task, pair, s);
  fill_zero(s.grad_k, side * dim);
  fill_zero(s.grad_v, side * dim);
  for (int64_t h = 0; h < call.group; ++h) {
    pair.head = task.kv_head * call.group + h;
    for (pair.tile = chunk; pair.tile < tiles_end(task, chunk); ++pair.tile) {
      pair.rows = rows_in(task, pair.tile);
      load_tile<T>(task, pair, s);
      score_gradients(task, pair, s, grad_q ? grad_q + (h * padded_length + pair.tile * side) * dim : nullptr);
      continue_key_gradients(task, pair, s);
    }
  }
  const int64_t token = task.start + chunk * side;
  store_rows<T>(call, call.grad_k, token, pair.keys, task.kv_head, s.grad_k, splat(call.scale));
  store_rows<T>(call, call.grad_v, token, pair.keys, task.kv_head, s.grad_v, splat(1.0f));
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

template <class T>
void gradients(const BackwardTask& task) {
  const BackwardCall& call = *task.call;
  const int64_t chunks = (task.length + side - 1) / side, head_floats = chunks * side * call.padded_dim;
  const Scratch s = cut(task);
  row_dots<T>(task);  // here, because it leaves grad_out in the cache
  fill_zero(s.grad_q, call.group * head_floats);
  for (int64_t chunk = 0; chunk < chunks; ++chunk) chunk_gradients<T>(task, chunk, s, s.grad_q);
  for (int64_t h = 0; h < call.group; ++h)
    store_rows<T>(call, call.grad_q, task.start, task.length, task.kv_head * call.group + h, s.grad_q + h * head_floats,
                  splat(call.scale));
}

template <class T>
void key_gradients(const BackwardTask& task) {
  const Scratch s = cut(task);
  for (int64_t chunk = task.begin; chunk < task.end; ++chunk) chunk_gradients<T>(task, chunk, s, nullptr);
}

template <class T>
void query_gradients(const BackwardTask& task) {
  const BackwardCall& call = *task.call;
  const Scratch s = cut(task);
  const int64_t tile_floats = side * call.padded_dim;
  Pair pair{};
  for (pair.tile = task.begin; pair.tile < task.end; ++pair.tile) {
    pair.rows = rows_in(task, pair.tile);
    fill_zero(s.grad_q, call.group * tile_floats);
    for (pair.chunk = chunks_begin(task, pair.tile); pair.chunk <= pair.tile; ++pair.chunk) {
      pair.keys = rows_in(task, pair.chunk);
      load_chunk<T>(task, pair, s);
      for (int64_t h = 0; h < call.group; ++h) {
        pair.head = task.kv_head * call.group + h;
        load_tile<T>(task, pair, s);
        score_gradients(task, pair, s, s.grad_q + h * tile_floats);
      }
    }
    for (int64_t h = 0; h < call.group; ++h)
      store_rows<T>(call, call.grad_q, task.start + pair.tile * side, pair.rows, task.kv_head * call.group + h,
                    s.grad_q + h * tile_floats, splat(call.scale));
  }
}

}  // namespace

void attention_row_dots(const BackwardTask& task) {
  with_element(task.call->dtype, [&](auto element) { row_dots<decltype(element)>(task); });
}
void attention_gradients(const BackwardTask& task) {
  with_element(task.call->dtype, [&](auto element) { gradients<decltype(element)>(task); });
}
void attention_key_gradients(const BackwardTask& task) {
  with_element(task.call->dtype, [&](auto element) { key_gradients<decltype(element)>(task); });
}
void attention_query_gradients(const BackwardTask& task) {
  with_element(task.call->dtype, [&](auto element) { query_gradients<decltype(element)>(task); });
}

}  // namespace lathe::kernels::LATHE_ISA
