// Tiles of many query rows, as training and prefill have: query rows are in the lanes. A block of 64 rows is transposed
// once for a tile, keys are broadcast from a copy, and maxima, sums and merges go down the lanes without a step across
// them. With keys in the lanes every chunk had to be transposed, and every row's maximum and sum cost two trees across
// a vector.
#include "kernels/attention/cpu/int8_pages/many_rows.h"
#include "kernels/attention/cpu/prefetch.h"
#include "kernels/attention/cpu/tile.h"
#include "kernels/attention/cpu/transposed_queries.h"

namespace lathe::kernels::LATHE_ISA {
namespace {

constexpr int64_t side = 64;  // rows of a block, keys of a chunk
static_assert(side == attention_chunk && side == transposed_row);

// Where a tile's scratch holds what. many_rows_scratch_floats() counts the same pieces.
struct Scratch {
  const void** rows;           // [2 · 64]
  float *k_scales, *v_scales;  // [64]; of i8 pages
  float* keys;                 // [64][padded_dim]
  float* values;               // [64][padded_dim]
  float* scores;               // [64 keys][64 rows]
  float* p;                    // [64 keys][64 rows]
  float *maximum, *sum;        // of a block in a chunk [64]
  float *before, *after;       // what a merge multiplies with [64]
  float* q;                    // [blocks][padded_dim][64 rows]
  RowStates state;             // whole blocks
};

int64_t blocks_of(const AttentionTileArgs& args) { return (rows_of(args) + side - 1) / side; }

Scratch scratch_of(const AttentionTileArgs& args) {
  const int64_t dim = args.call->padded_dim, rows = blocks_of(args) * side;
  float* next = args.scratch;
  const auto take = [&next](int64_t floats) {
    float* piece = next;
    next += floats;
    return piece;
  };
  Scratch s;
  s.rows = reinterpret_cast<const void**>(take(4 * side));
  for (float** row : {&s.k_scales, &s.v_scales, &s.maximum, &s.sum, &s.before, &s.after}) *row = take(side);
  s.keys = take(side * dim);
  s.values = take(side * dim);
  s.scores = take(side * side);
  s.p = take(side * side);
  s.q = take(rows * dim);
  s.state.out = take(rows * dim);
  s.state.maximum = take(rows + row_padding);
  s.state.sum = take(rows + row_padding);
  return s;
}

// Rows [first, first + count) of a tile against one chunk.
struct Block {
  int64_t first, count, chunk;
  int64_t keys;  // up to the last that some row sees, in whole vectors
};

int64_t position_of(const AttentionTileArgs& args, int64_t row) { return args.first_position + row / args.call->group; }

template <class Dot>
void load_queries(const AttentionTileArgs& args, const Scratch& s) {
  const AttentionTileArgs::Call& call = *args.call;
  const int64_t rows = rows_of(args);
  for (int64_t first = 0; first < rows; first += side) {
    const int64_t count = least(side, rows - first);
    for (int64_t r = 0; r < count; ++r) {
      const int64_t token = args.first_token + (first + r) / call.group;
      const int64_t head = args.kv_head * call.group + (first + r) % call.group;
      s.rows[r] =
          static_cast<const char*>(call.q.data) + (token * call.q.token + head * call.q.head) * size_of(call.dtype);
    }
#if defined(LATHE_ISA_avx512_bf16)
    if constexpr (Dot::width == 4) {
      load_quantised_queries(s.rows, count, call.head_dim, s.keys, s.q + first * call.padded_dim);
    } else
#endif
      with_element(call.dtype, [&](auto element) {
        load_transposed<decltype(element), Dot>(s.rows, count, call.head_dim, s.q + first * call.padded_dim);
      });
  }
}

template <class T, class Dot>
void load_chunk(const AttentionTileArgs& args, int64_t chunk, const Scratch& s) {
  const AttentionTileArgs::Call& call = *args.call;
  const int64_t present = keys_present(args, chunk), first = chunk * attention_chunk;
  find_rows<T>(args.keys, args.kv_head, first, present, s.rows);
  if (call.kv_dtype == DType::i8) find_scales(args.keys, args.kv_head, first, present, s.k_scales, s.v_scales);
  load_keys<T, Dot>(s.rows, present, call.head_dim, s.keys);
  load_values<T, Dot>(s.rows + attention_chunk, present, call.head_dim, call.padded_dim, s.values);
}

// s.scores[key][row] = q · k.
template <class Dot>
void score_block(const AttentionTileArgs& args, const Block& block, const Scratch& s) {
  const AttentionTileArgs::Call& call = *args.call;
  const FirstRow first_row{(block.chunk * attention_chunk - args.first_position) * call.group - block.first,
                           call.group};
  float* const queries = s.q + block.first * call.padded_dim;
  const int64_t keys = least(block.keys, keys_present(args, block.chunk));
#if defined(LATHE_ISA_avx512_bf16)
  if constexpr (Dot::width == 4)
    return multiply_int8_keys(s.keys, keys, queries, block.count, call.head_dim, first_row, s.scores, s.p);
#endif
  multiply_keys<Dot>(s.keys, keys, queries, block.count, call.head_dim, first_row, s.scores);
}

// softmax.h's l: what is lane j of a vector of keys there is t[j] here.
LATHE_INLINE Vec sum_across(Vec (&t)[lanes]) {
#pragma GCC unroll 4
  for (int half = lanes / 2; half > 0; half /= 2)
#pragma GCC unroll 8
    for (int j = 0; j < half; ++j) t[j] = t[j] + t[j + half];
  return t[0];
}

// The probabilities of one vector of rows and V vectors of keys: s and p point to its lanes of the first key.
template <class Dot, bool scaled, bool masked, int V>
void vector_probabilities(float* s, const SpanLanes& span, const Scoring& scoring, float* p, float* maximum,
                          float* sum) {
  constexpr int keys = V * lanes;
  if constexpr (scaled)
    for (int key = 0; key < keys; ++key) store(s + key * side, load(s + key * side) * splat(scoring.k_scales[key]));
  if (scoring.softcap > 0)
    for (int key = 0; key < keys; ++key) store(s + key * side, score_of(load(s + key * side), scoring));
  const auto score = [&](int key) __attribute__((always_inline)) {
    const Vec x = load(s + key * side);
    return masked ? select(span.holds(key), x, splat(no_score)) : x;
  };
  Vec highest[4];
  for (int i = 0; i < 4; ++i) highest[i] = splat(no_score);
  for (int key = 0; key < keys; key += 4)
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) highest[i] = max(score(key + i), highest[i]);
  const Vec most = max(max(highest[0], highest[1]), max(highest[2], highest[3])) * splat(scoring.factor);
  store(maximum, most);
  const auto weight = [&](int key) __attribute__((always_inline)) {
    const Vec w = exp2_below_zero(fma(score(key), splat(scoring.factor), -most));
    return masked ? select(span.holds(key), w, zero()) : w;
  };
  const auto valued = [&](int key, Vec w) __attribute__((always_inline)) {
    return scaled ? w * splat(scoring.v_scales[key]) : w;
  };
  Vec total[lanes];
  for (int j = 0; j < lanes; j += 2) {
    Vec even[V], odd[V];
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) {
      const int key = v * lanes + j;
      even[v] = weight(key);
      odd[v] = weight(key + 1);
      Dot::store_columns(p + key / Dot::columns_per_word * side, side, valued(key, even[v]), valued(key + 1, odd[v]));
    }
    total[j] = even[0];
    total[j + 1] = odd[0];
    for (int v = 1; v < V; ++v) {
      total[j] = total[j] + even[v];
      total[j + 1] = total[j + 1] + odd[v];
    }
  }
  store(sum, sum_across(total));
#if defined(LATHE_ISA_avx512_bf16)
  if constexpr (Dot::width == 4) quantise_weights<V>(p);
#endif
}

// Of the first 16, 32, 48 or 64 keys, or of none.
template <class Dot, bool scaled, bool masked>
LATHE_INLINE void vector_probabilities(float* s, int64_t keys, const SpanLanes& span, const Scoring& scoring, float* p,
                                       float* maximum, float* sum) {
  constexpr int V = row_padding / lanes;
  switch (keys / row_padding) {
    case 1: return vector_probabilities<Dot, scaled, masked, V>(s, span, scoring, p, maximum, sum);
    case 2: return vector_probabilities<Dot, scaled, masked, 2 * V>(s, span, scoring, p, maximum, sum);
    case 3: return vector_probabilities<Dot, scaled, masked, 3 * V>(s, span, scoring, p, maximum, sum);
    case 4: return vector_probabilities<Dot, scaled, masked, 4 * V>(s, span, scoring, p, maximum, sum);
    default: store(maximum, splat(no_score)), store(sum, zero());
  }
}

KeySpan span_of(const AttentionTileArgs& args, int64_t row, int64_t chunk) {
  return visible_keys(position_of(args, row), args.call->params.window, chunk);
}

// Probabilities of the whole block in p, maxima and sums in s.maximum and s.sum.
template <class T, class Dot>
void block_probabilities(const AttentionTileArgs& args, const Block& block, const Scoring& scoring, const Scratch& s) {
  for (int64_t column = 0; column < block.count; column += lanes) {
    const int64_t row = block.first + column, last = least(row + lanes, block.first + block.count) - 1;
    const KeySpan first_span = span_of(args, row, block.chunk), last_span = span_of(args, last, block.chunk);
    const int64_t keys = first_span.begin < last_span.end ? padded_keys(last_span.end) : 0;
    const bool masked = first_span.end < keys || last_span.begin > 0;
    SpanLanes span{};
    if (masked) {
      KeySpan spans[lanes];
      for (int i = 0; i < lanes; ++i) spans[i] = span_of(args, least(row + i, last), block.chunk);
      span = span_lanes(spans);
    }
    float *const scores = s.scores + column, *const p = s.p + column;
    float *const maximum = s.maximum + column, *const sum = s.sum + column;
    constexpr bool scaled = sizeof(T) == 1;
    masked ? vector_probabilities<Dot, scaled, true>(scores, keys, span, scoring, p, maximum, sum)
           : vector_probabilities<Dot, scaled, false>(scores, keys, span, scoring, p, maximum, sum);
    // Later rows of a block of the next product may see more keys.
    int64_t filled = keys / Dot::columns_per_word, wanted = block.keys / Dot::columns_per_word;
    if (Dot::width == 4) filled = keys > 0 ? side : 0, wanted = side;  // quantised are whole chunks
    for (int64_t i = filled; i < wanted; ++i) store(p + i * side, zero());
  }
}

template <class Dot>
auto chunk_values(const Scratch& s, int64_t dim) {
#if defined(LATHE_ISA_avx512_bf16)
  if constexpr (Dot::width == 4) {
    return Int8Words{s.values, s.values + weight_words * dim};
  } else
#endif
    return StridedRows{s.values, dim};
}

// The block's rows of `out` from the probabilities and the chunk's values.
template <Chain chain, class Dot>
void weigh_values(const AttentionTileArgs& args, const Block& block, const Scratch& s, float* out) {
  const int64_t dim = args.call->padded_dim;
  for (int64_t row = 0; row < block.count;) {
    const int count = next_block(block.count - row);
    const int begin = span_of(args, block.first + row, block.chunk).begin;
    const int end = span_of(args, block.first + row + count - 1, block.chunk).end;
    if (begin < end)
      multiply<chain, Dot>(count, Factor{s.p + row, 1, side}, chunk_values<Dot>(s, dim), begin / Dot::width,
                           (end + Dot::width - 1) / Dot::width, out + row * dim, dim, dim,
                           {s.before + row, s.after + row});
    row += count;
  }
}

// merge_chunk()'s maxima and sums, and the factors of what it merges. A row that sees none of the chunk keeps its own.
void merge_sums(const Block& block, const Scratch& s) {
  for (int64_t i = 0; i < block.count; i += lanes) {
    float *const maximum = s.state.maximum + block.first + i, *const sum = s.state.sum + block.first + i;
    const Vec m = load(maximum), m_chunk = load(s.maximum + i), highest = max(m_chunk, m);
    const Vec reference = max(highest, splat(-3.0e38f));  // −inf less −inf is NaN
    const Vec a = exp2_below_zero(m - reference), b = exp2_below_zero(m_chunk - reference);
    store(s.before + i, a);
    store(s.after + i, b);
    store(maximum, highest);
    store(sum, fma(load(sum), a, load(s.sum + i) * b));
  }
}

// A kv head's rows are a short piece of each token's: read head by head from memory, they come at a third of the speed
// of all in their order. So the first head's tile brings those of all, which the second-level cache keeps for the
// others.
void prefetch_tile(const AttentionTileArgs& args) {
  const AttentionTileArgs::Call& call = *args.call;
  const int64_t dim = call.head_dim, size = size_of(call.dtype), heads = call.kv_heads * call.group;
  prefetch_tokens<Access::read>(call.q, heads, dim, size, args.first_token, args.tokens);
  prefetch_tokens<Access::write>(call.out, heads, dim, size, args.first_token, args.tokens);
  for (const KeyRows* x : {&args.keys.k, &args.keys.v})
    prefetch_tokens<Access::read>({const_cast<void*>(x->data), x->token, x->head}, call.kv_heads, dim, size,
                                  args.first_position, args.tokens);
}

template <class Dot>
void start_tile(const AttentionTileArgs& args, const Scratch& s) {
  if (args.kv_head == 0 && args.keys.pages == nullptr) prefetch_tile(args);
  load_queries<Dot>(args, s);
}

// The tile's rows from `first` on against the chunk; no keys where none of them sees any.
Block block_at(const AttentionTileArgs& args, int64_t first, int64_t chunk) {
  Block block{first, least(side, rows_of(args) - first), chunk, 0};
  const KeySpan last = span_of(args, first + block.count - 1, chunk);
  if (last.end > span_of(args, first, chunk).begin) block.keys = padded_keys(last.end);
  return block;
}

template <class T, class Dot>
void tile(const AttentionTileArgs& args) {
  const Scratch s = scratch_of(args);
  const Scoring scoring = tile_scoring(*args.call, s.k_scales, s.v_scales);
  const int64_t rows = rows_of(args), dim = args.call->padded_dim;
  clear(s.state, blocks_of(args) * side, dim);
  start_tile<Dot>(args, s);
  for (int64_t chunk = args.chunk_begin; chunk < args.chunk_end; ++chunk) {
    load_chunk<T, Dot>(args, chunk, s);
    for (int64_t first = 0; first < rows; first += side) {
      const Block block = block_at(args, first, chunk);
      if (block.keys == 0) continue;
      score_block<Dot>(args, block, s);
      block_probabilities<T, Dot>(args, block, scoring, s);
      merge_sums(block, s);
      float* const out = s.state.out + first * dim;
      chunk == args.chunk_begin ? weigh_values<Chain::starts, Dot>(args, block, s, out)
                                : weigh_values<Chain::merges, Dot>(args, block, s, out);
    }
  }
  write_rows(args, s.state);
}

template <class T, class Dot>
void tile_chunks(const AttentionTileArgs& args) {
  const Scratch s = scratch_of(args);
  const Scoring scoring = tile_scoring(*args.call, s.k_scales, s.v_scales);
  const int64_t rows = rows_of(args);
  start_tile<Dot>(args, s);
  for (int64_t chunk = args.chunk_begin; chunk < args.chunk_end; ++chunk) {
    load_chunk<T, Dot>(args, chunk, s);
    for (int64_t first = 0; first < rows; first += side) {
      const Block block = block_at(args, first, chunk);
      if (block.keys == 0) continue;
      score_block<Dot>(args, block, s);
      block_probabilities<T, Dot>(args, block, scoring, s);
      const int64_t place = chunk * rows + first;
      const size_t bytes = static_cast<size_t>(block.count) * sizeof(float);
      __builtin_memcpy(args.partials.maximum + place, s.maximum, bytes);
      __builtin_memcpy(args.partials.sum + place, s.sum, bytes);
      weigh_values<Chain::starts, Dot>(args, block, s, args.partials.out + place * args.call->padded_dim);
    }
  }
}

}  // namespace

void many_rows_tile(const AttentionTileArgs& args) {
  with_types(*args.call, [&](auto element, auto dot) { tile<decltype(element), decltype(dot)>(args); });
}

void many_rows_tile_chunks(const AttentionTileArgs& args) {
  with_types(*args.call, [&](auto element, auto dot) { tile_chunks<decltype(element), decltype(dot)>(args); });
}

}  // namespace lathe::kernels::LATHE_ISA
