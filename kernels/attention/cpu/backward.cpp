// The unit is one block: a chunk of 64 keys against a tile of 64 query rows of one head. Query rows are in the lanes:
// scores and their gradients are made key by key, without a step across lanes, and are the left factors of three more
// products, each a chain that goes on from block to block. grad_k and grad_v of a key run over the group's heads, then
// the rows, ascending; grad_q of a row over its keys, ascending. Where the CPU multiplies pairs of bf16 and everything
// is bf16, the chains go by pairs, and P and dS are rounded to bf16 for it.
#include "kernels/attention/cpu/prefetch.h"
#include "kernels/attention/cpu/transposed_queries.h"

namespace lathe::kernels::LATHE_ISA {
namespace {

constexpr int64_t side = attention_chunk;
static_assert(side == transposed_row);

// A chunk in scratch, 64 rows of padded_dim each: keys and values for products along d, and keys for the product along
// keys. These two differ where elements go by pairs.
struct Chunk {
  float *k, *v, *k_by_key;
};

// Where a task's scratch holds what. attention_gradient_scratch_floats() counts the same pieces.
struct Scratch {
  const void** rows;                          // [64]
  float *lse, *dots;                          // of a tile's rows [64]; lse in units of log 2
  float *q_transposed, *grad_out_transposed;  // [padded_dim][64]
  float *q, *grad_out;                        // [64][padded_dim], for the products along rows
  float *p, *ds;                              // [64 keys][64 rows]: products, and then dS for the product along keys
  float *p_by_row, *ds_by_row;                // [64 keys][64 rows], for the products along rows
  float* grad_q;                              // [64][padded_dim]
  float *k, *v, *k_by_key, *grad_k, *grad_v;  // of one chunk or of all: 64 rows of padded_dim each
  int64_t matrix;                             // 64 · padded_dim

  template <class Dot>
  Chunk chunk(int64_t slot) const {
    return {k + slot * matrix, v + slot * matrix, (Dot::width == 2 ? k_by_key : k) + slot * matrix};
  }
};

Scratch scratch_of(const AttentionGradientArgs& args) {
  Scratch s;
  s.matrix = side * args.call->padded_dim;
  const int64_t chunks = (args.length + side - 1) / side;
  float* next = args.scratch;
  const auto take = [&next](int64_t floats) {
    float* piece = next;
    next += floats;
    return piece;
  };
  s.rows = reinterpret_cast<const void**>(take(2 * side));
  s.lse = take(side);
  s.dots = take(side);
  for (float** rows : {&s.q_transposed, &s.grad_out_transposed, &s.q, &s.grad_out, &s.grad_q}) *rows = take(s.matrix);
  for (float** square : {&s.p, &s.ds, &s.p_by_row, &s.ds_by_row}) *square = take(side * side);
  for (float** keys : {&s.k, &s.v, &s.k_by_key, &s.grad_k, &s.grad_v}) *keys = take(chunks * s.matrix);
  return s;
}

void fill_zero(float* p, int64_t floats) { __builtin_memset(p, 0, static_cast<size_t>(floats) * sizeof(float)); }

// ---- rows of memory ----

template <class T>
void find_rows(const HeadRows& x, int64_t token, int64_t count, int64_t head, const void** rows) {
  for (int64_t i = 0; i < count; ++i) rows[i] = row_of<const T>(x, token + i, head);
}

template <class T>
void store_rows(const AttentionGradientArgs::Call& call, const HeadRows& x, int64_t token, int64_t count, int64_t head,
                const float* rows, Vec scale) {
  for (int64_t i = 0; i < count; ++i, rows += call.padded_dim) {
    T* row = row_of<T>(x, token + i, head);
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

// [64] from `count` that are there; the last is repeated, as in the rows that were transposed.
void load_numbers(const float* from, int64_t count, Vec factor, float* to) {
  __builtin_memcpy(to, from, static_cast<size_t>(count) * sizeof(float));
  for (int64_t i = count; i < side; ++i) to[i] = to[count - 1];
  for (int64_t i = 0; i < side; i += lanes) store(to + i, load(to + i) * factor);
}

// Rows of a tile, or keys of a chunk, counted from the sequence's start.
int64_t rows_in(const AttentionGradientArgs& args, int64_t tile) { return least(side, args.length - tile * side); }

template <class T, class Dot>
void load_tile(const AttentionGradientArgs& args, int64_t tile, int64_t head, const Scratch& s) {
  const AttentionGradientArgs::Call& call = *args.call;
  const int64_t token = args.start + tile * side, count = rows_in(args, tile);
  find_rows<T>(call.q, token, count, head, s.rows);
  load_values<T, Dot>(s.rows, count, call.head_dim, call.padded_dim, s.q);
  load_transposed<T, Dot>(s.rows, count, call.head_dim, s.q_transposed);
  find_rows<T>(call.grad_out, token, count, head, s.rows);
  load_values<T, Dot>(s.rows, count, call.head_dim, call.padded_dim, s.grad_out);
  load_transposed<T, Dot>(s.rows, count, call.head_dim, s.grad_out_transposed);
  load_numbers(call.lse + head * call.lse_head + token, count, splat(log2_e), s.lse);
  load_numbers(call.dots + head * call.tokens + token, count, splat(1.0f), s.dots);
}

template <class T, class Dot>
void load_chunk(const AttentionGradientArgs& args, int64_t chunk, const void** rows, const Chunk& to) {
  const AttentionGradientArgs::Call& call = *args.call;
  const int64_t token = args.start + chunk * side, count = rows_in(args, chunk);
  find_rows<T>(call.v, token, count, args.kv_head, rows);
  load_keys<T, Dot>(rows, count, call.head_dim, to.v);
  find_rows<T>(call.k, token, count, args.kv_head, rows);
  load_keys<T, Dot>(rows, count, call.head_dim, to.k);
  if constexpr (Dot::width == 2) load_values<T, Dot>(rows, count, call.head_dim, call.padded_dim, to.k_by_key);
}

// ---- one block ----

// A tile's rows of one head against a chunk's keys.
struct Block {
  int64_t tile, rows, chunk, keys;
};

Block block_at(const AttentionGradientArgs& args, int64_t tile, int64_t chunk) {
  return {tile, rows_in(args, tile), chunk, rows_in(args, chunk)};
}

KeySpan span_of(const AttentionGradientArgs& args, const Block& block, int64_t row) {
  return visible_keys(block.tile * side + row, args.call->params.window, block.chunk);
}

// The chunk's keys up to the last that a row of the tile sees, whole vectors of them.
int64_t keys_seen(const AttentionGradientArgs& args, const Block& block) {
  return padded_keys(span_of(args, block, block.rows - 1).end);
}

// One vector of a block's rows, at the first key.
struct RowVector {
  float *p, *ds;                // products q·k and grad_out·v; ds then holds dS / scale for the product along keys
  float *p_by_row, *ds_by_row;  // the key's whole row of 64; `row` is the vector's place in it
  int64_t row;
  Vec lse, dot;
  SpanLanes span;
};

// Keys [0, keys) of one vector of rows, keys even.
template <class Dot, bool masked>
void vector_gradients(const AttentionParams& params, const RowVector& at, int64_t keys) {
  const Scoring scoring = scoring_of(params, nullptr, nullptr);
  const bool is_capped = params.softcap > 0;
  for (int64_t key = 0; key < keys; key += 2) {
    Vec ds[2];
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      const int64_t place = (key + i) * side;
      Vec score = load(at.p + place), slope = splat(1.0f);
      if (is_capped) {
        score = score_of(score, scoring);
        const Vec t = score * splat(1.0f / params.softcap);
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
      Dot::store_row(at.p_by_row + place / Dot::width, at.row, p);
      Dot::store_row(at.ds_by_row + place / Dot::width, at.row, ds[i]);
    }
    Dot::store_columns(at.ds + key / Dot::width * side, side, ds[0], ds[1]);
  }
}

// Fills p_by_row, ds_by_row and ds.
template <class Dot>
void score_gradients(const AttentionGradientArgs& args, const Block& block, const Chunk& chunk, const Scratch& s) {
  const AttentionGradientArgs::Call& call = *args.call;
  const int64_t keys = keys_seen(args, block), present = least(keys, block.keys);
  const FirstRow first_row{(block.chunk - block.tile) * side, 1};
  multiply_keys<Dot>(chunk.k, present, s.q_transposed, block.rows, call.head_dim, first_row, s.p);
  multiply_keys<Dot>(chunk.v, present, s.grad_out_transposed, block.rows, call.head_dim, first_row, s.ds);
  for (int64_t row = 0; row < block.rows; row += lanes) {
    const int64_t last = least(row + lanes, block.rows) - 1;
    const KeySpan first_span = span_of(args, block, row), last_span = span_of(args, block, last);
    const int64_t seen = padded_keys(last_span.end);
    const bool masked = first_span.end < seen || last_span.begin > 0;
    RowVector at{s.p + row, s.ds + row, s.p_by_row, s.ds_by_row, row, load(s.lse + row), load(s.dots + row), {}};
    if (masked) {
      KeySpan spans[lanes];
      for (int i = 0; i < lanes; ++i) spans[i] = span_of(args, block, least(row + i, last));
      at.span = span_lanes(spans);
    }
    masked ? vector_gradients<Dot, true>(call.params, at, seen) : vector_gradients<Dot, false>(call.params, at, seen);
    for (int64_t key = seen; key < keys; ++key) {  // or the next products read what was there before
      Dot::store_row(at.p_by_row + key * side / Dot::width, row, zero());
      Dot::store_row(at.ds_by_row + key * side / Dot::width, row, zero());
      if (key % Dot::width == 0) store(at.ds + key / Dot::width * side, zero());
    }
  }
}

// Continues grad_q of the tile's rows over the chunk's keys.
template <class Dot>
void continue_query_gradients(const AttentionGradientArgs& args, const Block& block, const Chunk& chunk,
                              const Scratch& s) {
  const int64_t dim = args.call->padded_dim;
  for (int64_t row = 0; row < block.rows;) {
    const int count = next_block(block.rows - row);
    const int begin = span_of(args, block, row).begin, end = span_of(args, block, row + count - 1).end;
    if (begin < end)
      multiply<Chain::continues, Dot>(count, Factor{s.ds + row, 1, side}, StridedRows{chunk.k_by_key, dim},
                                      begin / Dot::width, (end + Dot::width - 1) / Dot::width, s.grad_q + row * dim,
                                      dim, dim);
    row += count;
  }
}

// Continues grad_v and grad_k of the chunk's keys over the tile's rows.
template <class Dot>
void continue_key_gradients(const AttentionGradientArgs& args, const Block& block, const Scratch& s, float* grad_k,
                            float* grad_v) {
  constexpr int64_t row_words = side / Dot::width;
  const int64_t dim = args.call->padded_dim, keys = least(keys_seen(args, block), block.keys);
  const int64_t end = (block.rows + Dot::width - 1) / Dot::width;
  for (int64_t key = 0; key < keys;) {
    const int count = next_block(keys - key);
    // Causality: rows before `first` see none of these keys.
    const int64_t first = (block.chunk - block.tile) * side + key, begin = first > 0 ? first / Dot::width : 0;
    if (begin < end) {
      multiply<Chain::continues, Dot>(count, Factor{s.p_by_row + key * row_words, row_words, 1},
                                      StridedRows{s.grad_out, dim}, begin, end, grad_v + key * dim, dim, dim);
      multiply<Chain::continues, Dot>(count, Factor{s.ds_by_row + key * row_words, row_words, 1}, StridedRows{s.q, dim},
                                      begin, end, grad_k + key * dim, dim, dim);
    }
    key += count;
  }
}

// ---- what sees what ----

// Tiles, from the chunk's own on, that hold a row which sees the chunk.
int64_t tiles_end(const AttentionGradientArgs& args, int64_t chunk) {
  int64_t rows = args.length;
  if (args.call->params.window > 0) rows = least(rows, (chunk + 1) * side + args.call->params.window - 1);
  return (rows + side - 1) / side;
}

// Chunks, up to the tile's own, that hold a key which the tile sees.
int64_t chunks_begin(const AttentionGradientArgs& args, int64_t tile) {
  if (args.call->params.window == 0) return 0;
  const int64_t first = tile * side + 1 - args.call->params.window;
  return first > 0 ? first / side : 0;
}

// ---- results ----

template <class T>
void store_key_gradients(const AttentionGradientArgs& args, int64_t chunk, const float* grad_k, const float* grad_v) {
  const AttentionGradientArgs::Call& call = *args.call;
  const int64_t token = args.start + chunk * side, keys = rows_in(args, chunk);
  store_rows<T>(call, call.grad_k, token, keys, args.kv_head, grad_k, splat(call.params.scale));
  store_rows<T>(call, call.grad_v, token, keys, args.kv_head, grad_v, splat(1.0f));
}

template <class T>
void store_query_gradients(const AttentionGradientArgs& args, int64_t tile, int64_t head, const float* grad_q) {
  const AttentionGradientArgs::Call& call = *args.call;
  store_rows<T>(call, call.grad_q, args.start + tile * side, rows_in(args, tile), head, grad_q,
                splat(call.params.scale));
}

// rowsum(grad_out ∘ out) of the kv head's query heads, token by token, in the order of memory.
template <class T>
void row_dots(const AttentionGradientArgs& args) {
  const AttentionGradientArgs::Call& call = *args.call;
  for (int64_t token = args.start; token < args.start + args.length; ++token) {
    for (int64_t head = args.kv_head * call.group; head < (args.kv_head + 1) * call.group; ++head) {
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

// As in the forward: a sequence's first head brings the rows of all, in the order of memory.
template <class T>
void prefetch_sequence(const AttentionGradientArgs& args) {
  const AttentionGradientArgs::Call& call = *args.call;
  const int64_t heads = call.heads, kv_heads = call.kv_heads, dim = call.head_dim;
  constexpr int64_t size = sizeof(T);
  for (const HeadRows* x : {&call.grad_out, &call.out, &call.q})
    prefetch_tokens<Access::read>(*x, heads, dim, size, args.start, args.length);
  for (const HeadRows* x : {&call.k, &call.v})
    prefetch_tokens<Access::read>(*x, kv_heads, dim, size, args.start, args.length);
  prefetch_tokens<Access::write>(call.grad_q, heads, dim, size, args.start, args.length);
  for (const HeadRows* x : {&call.grad_k, &call.grad_v})
    prefetch_tokens<Access::write>(*x, kv_heads, dim, size, args.start, args.length);
}

// ---- the three ways through a sequence ----

template <class T, class Dot>
void gradients(const AttentionGradientArgs& args) {
  const int64_t group = args.call->group, tiles = (args.length + side - 1) / side;
  const Scratch s = scratch_of(args);
  if (args.kv_head == 0) prefetch_sequence<T>(args);
  row_dots<T>(args);  // here, because it leaves grad_out in the cache
  for (int64_t chunk = 0; chunk < tiles; ++chunk) load_chunk<T, Dot>(args, chunk, s.rows, s.chunk<Dot>(chunk));
  fill_zero(s.grad_k, tiles * s.matrix);
  fill_zero(s.grad_v, tiles * s.matrix);
  for (int64_t head = args.kv_head * group; head < (args.kv_head + 1) * group; ++head) {
    for (int64_t tile = 0; tile < tiles; ++tile) {
      load_tile<T, Dot>(args, tile, head, s);
      fill_zero(s.grad_q, s.matrix);
      for (int64_t chunk = chunks_begin(args, tile); chunk <= tile; ++chunk) {
        const Block block = block_at(args, tile, chunk);
        const Chunk keys = s.chunk<Dot>(chunk);
        score_gradients<Dot>(args, block, keys, s);
        continue_query_gradients<Dot>(args, block, keys, s);
        continue_key_gradients<Dot>(args, block, s, s.grad_k + chunk * s.matrix, s.grad_v + chunk * s.matrix);
      }
      store_query_gradients<T>(args, tile, head, s.grad_q);
    }
  }
  for (int64_t chunk = 0; chunk < tiles; ++chunk)
    store_key_gradients<T>(args, chunk, s.grad_k + chunk * s.matrix, s.grad_v + chunk * s.matrix);
}

template <class T, class Dot>
void key_gradients(const AttentionGradientArgs& args) {
  const int64_t group = args.call->group;
  const Scratch s = scratch_of(args);
  const Chunk keys = s.chunk<Dot>(0);
  for (int64_t chunk = args.begin; chunk < args.end; ++chunk) {
    load_chunk<T, Dot>(args, chunk, s.rows, keys);
    fill_zero(s.grad_k, s.matrix);
    fill_zero(s.grad_v, s.matrix);
    for (int64_t head = args.kv_head * group; head < (args.kv_head + 1) * group; ++head) {
      for (int64_t tile = chunk; tile < tiles_end(args, chunk); ++tile) {
        const Block block = block_at(args, tile, chunk);
        load_tile<T, Dot>(args, tile, head, s);
        score_gradients<Dot>(args, block, keys, s);
        continue_key_gradients<Dot>(args, block, s, s.grad_k, s.grad_v);
      }
    }
    store_key_gradients<T>(args, chunk, s.grad_k, s.grad_v);
  }
}

template <class T, class Dot>
void query_gradients(const AttentionGradientArgs& args) {
  const int64_t group = args.call->group;
  const Scratch s = scratch_of(args);
  const Chunk keys = s.chunk<Dot>(0);
  for (int64_t head = args.kv_head * group; head < (args.kv_head + 1) * group; ++head) {
    for (int64_t tile = args.begin; tile < args.end; ++tile) {
      load_tile<T, Dot>(args, tile, head, s);
      fill_zero(s.grad_q, s.matrix);
      for (int64_t chunk = chunks_begin(args, tile); chunk <= tile; ++chunk) {
        const Block block = block_at(args, tile, chunk);
        load_chunk<T, Dot>(args, chunk, s.rows, keys);
        score_gradients<Dot>(args, block, keys, s);
        continue_query_gradients<Dot>(args, block, keys, s);
      }
      store_query_gradients<T>(args, tile, head, s.grad_q);
    }
  }
}

// Calls body with an element of the tensors' type and the Dot of their products.
template <class Body>
void with_types(const AttentionGradientArgs& args, Body body) {
  with_dot(args.call->pairs, args.call->dtype, args.call->dtype, args.call->head_dim, body);
}

}  // namespace
}  // namespace lathe::kernels::LATHE_ISA

namespace lathe::kernels {

template <Isa>
void attention_row_dots(const AttentionGradientArgs& args) {
  with_element(args.call->dtype, [&](auto element) { row_dots<decltype(element)>(args); });
}
template void attention_row_dots<Isa::LATHE_ISA>(const AttentionGradientArgs&);

template <Isa>
void attention_gradients(const AttentionGradientArgs& args) {
  with_types(args, [&](auto element, auto dot) { gradients<decltype(element), decltype(dot)>(args); });
}
template void attention_gradients<Isa::LATHE_ISA>(const AttentionGradientArgs&);

template <Isa>
void attention_key_gradients(const AttentionGradientArgs& args) {
  with_types(args, [&](auto element, auto dot) { key_gradients<decltype(element), decltype(dot)>(args); });
}
template void attention_key_gradients<Isa::LATHE_ISA>(const AttentionGradientArgs&);

template <Isa>
void attention_query_gradients(const AttentionGradientArgs& args) {
  with_types(args, [&](auto element, auto dot) { query_gradients<decltype(element), decltype(dot)>(args); });
}
template void attention_query_gradients<Isa::LATHE_ISA>(const AttentionGradientArgs&);

}  // namespace lathe::kernels
