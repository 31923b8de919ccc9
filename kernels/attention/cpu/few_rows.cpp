// Tiles of few query rows, as decode has: the keys are in the lanes, keys and values are read in place, and those of
// the next chunks are prefetched.
#include "kernels/attention/cpu/int8_pages/few_rows.h"
#include "kernels/attention/cpu/in_place_products.h"
#include "kernels/attention/cpu/tile.h"

namespace lathe::kernels::LATHE_ISA {
namespace {

// Where a tile's scratch holds what. few_rows_scratch_floats() counts the same pieces.
struct Scratch {
  float* q;  // [rows], query_row() apart
  RowStates state;
  float* keys;    // [head_dim][64]
  float* values;  // [64][padded_dim]
  float* p;       // [block_rows][64]
  ChunkResult result;
  const void** rows;           // [2 · 64], of the chunk: keys, then values; where they are not read in place
  float *k_scales, *v_scales;  // [64]; of i8 pages

  const void** k_rows() const { return rows; }
  const void** v_rows() const { return rows + attention_chunk; }
};

Scratch scratch_of(const AttentionTileArgs& args) {
  const int64_t rows = rows_of(args), dim = args.call->padded_dim;
  Scratch s;
  float* next = args.scratch;
  const auto take = [&next](int64_t floats) {
    float* piece = next;
    next += (floats + row_padding - 1) / row_padding * row_padding;
    return piece;
  };
  s.rows = reinterpret_cast<const void**>(take(4 * attention_chunk));
  s.k_scales = take(attention_chunk);
  s.v_scales = take(attention_chunk);
  s.keys = take(attention_chunk * dim);
  s.values = take(attention_chunk * dim);
  s.p = take(block_rows * attention_chunk);
  s.result.maximum = take(row_padding);
  s.result.sum = take(row_padding);
  s.result.out = take(block_rows * dim);
  s.q = take(rows * (2 * dim + row_padding));  // the longest, of Int8Dot
  s.state.out = take(rows * dim);
  s.state.maximum = take(rows + row_padding);
  s.state.sum = take(rows + row_padding);
  return s;
}

// ---- queries ----

// Floats from one query row to the next in scratch.
template <class Dot>
LATHE_INLINE int64_t query_row(int64_t padded_dim) {
#if defined(LATHE_ISA_avx512_bf16)
  if constexpr (Dot::width == 4) return quantised_query_row(padded_dim);
#endif
  return padded_dim;
}

template <class Dot, class T>
LATHE_INLINE void load_query(const AttentionTileArgs::Call& call, const T* row, float* q) {
#if defined(LATHE_ISA_avx512_bf16)
  if constexpr (Dot::width == 4) return load_quantised_query(row, call.head_dim, q);
#endif
  if constexpr (Dot::width == 2) {
    // Bits. A call of memcpy for each took a twelfth of short sequences.
    load_padded(reinterpret_cast<const float*>(row), call.head_dim / 2, call.padded_dim / 2, q);
  } else {
    load_padded(row, call.head_dim, call.padded_dim, q);
    if (call.kv_dtype != DType::i8) return;
    for (int64_t d = 0; d < call.padded_dim; d += lanes) store(q + d, load(q + d) * splat(1.0f / i8_column_unit));
  }
}

template <class Dot, class T>
void load_queries(const AttentionTileArgs& args, float* q) {
  const AttentionTileArgs::Call& call = *args.call;
  for (int64_t token = args.first_token; token < args.first_token + args.tokens; ++token)
    for (int64_t h = 0; h < call.group; ++h, q += query_row<Dot>(call.padded_dim))
      load_query<Dot>(call, row_of<const T>(call.q, token, args.kv_head * call.group + h), q);
}

template <class Dot>
void load_queries(const AttentionTileArgs& args, float* q) {
  if constexpr (Dot::width > 1) {
    load_queries<Dot, bf16>(args, q);
  } else {
    with_element(args.call->dtype, [&](auto element) { load_queries<Dot, decltype(element)>(args, q); });
  }
}

// ---- one chunk of keys and values ----

// The chunk that is computed and those after it, whose rows are prefetched meanwhile; of tiles that read in place.
struct ChunkWindow {
  ChunkAddresses chunks[1 + prefetch_distance];
  bool known[1 + prefetch_distance];
  int current = 0;
  Prefetcher prefetch;

  int place(int distance) const { return (current + distance) % (1 + prefetch_distance); }
};

bool reads_in_place(const AttentionTileArgs& args) { return args.call->head_dim == args.call->padded_dim; }

// How often the probabilities of a row with 64 keys call step().
constexpr int64_t probability_steps = 1 + attention_chunk / lanes;

// Prefetches of the chunks after this one, in equal parts wherever a strip of keys or a value is read.
template <class T, class Dot>
Prefetcher next_chunks(const AttentionTileArgs& args, const ChunkWindow& window) {
  const AttentionTileArgs::Call& call = *args.call;
  if (!window.known[window.place(1)]) return {};
  const ChunkAddresses* chunks[prefetch_distance];
  // In place of what is not known, rows that are in the cache.
  for (int i = 0; i < prefetch_distance; ++i)
    chunks[i] = &window.chunks[window.place(window.known[window.place(i + 1)] ? i + 1 : 0)];
  const int64_t row_bytes = call.head_dim * static_cast<int64_t>(sizeof(T));
  const int64_t strips = attention_chunk / lanes * (row_bytes / 16);
  const int64_t blocks = (rows_of(args) + block_rows - 1) / block_rows;
  const int64_t vectors = (call.padded_dim + block_vectors * lanes - 1) / (block_vectors * lanes);
  const int64_t passes = Dot::width == 4 ? 2 : 1;  // of int8_pages/few_rows.h over keys and over values
  const int64_t product_steps = passes * (strips + vectors * (attention_chunk / Dot::width));
  return {chunks, row_bytes, sizeof(T) == 1, blocks * product_steps + rows_of(args) * probability_steps};
}

// The rows of the chunk that is computed `distance` chunks after this one, by this tile or the next.
template <class T>
void find_chunk_after(const AttentionTileArgs& args, int64_t chunk, int distance, ChunkWindow& window) {
  const AttentionTileArgs* owner = &args;
  int64_t wanted = chunk + distance;
  if (wanted >= args.chunk_end && args.next != nullptr) {
    owner = args.next;
    wanted += owner->chunk_begin - args.chunk_end;
  }
  const int place = window.place(distance);
  window.known[place] = owner->tokens > 0 && wanted < owner->chunk_end;
  if (!window.known[place]) return;
  const int64_t first = wanted * attention_chunk, present = keys_present(*owner, wanted);
  find_addresses<T>(owner->keys, owner->kv_head, first, present, window.chunks[place]);
}

template <class T, class Dot>
void find_chunk(const AttentionTileArgs& args, int64_t chunk, const Scratch& s, ChunkWindow& window) {
  const int64_t dim = args.call->head_dim, kv_head = args.kv_head;
  if (chunk == args.chunk_begin) {
    for (int i = 0; i < prefetch_distance; ++i) find_chunk_after<T>(args, chunk, i, window);
  } else {
    window.current = window.place(1);
  }
  find_chunk_after<T>(args, chunk, prefetch_distance, window);
  window.prefetch = next_chunks<T, Dot>(args, window);
  ChunkAddresses& rows = window.chunks[window.current];
  const int64_t present = keys_present(args, chunk), first = chunk * attention_chunk;
  complete_runs<T>(args.keys, head_addresses<T>(args.keys.k, kv_head), first, present, dim, s.keys, rows.k);
  complete_runs<T>(args.keys, head_addresses<T>(args.keys.v, kv_head), first, present, dim, s.values, rows.v);
}

template <class T, class Dot>
void load_chunk(const AttentionTileArgs& args, int64_t chunk, const Scratch& s, ChunkWindow& window) {
  const AttentionTileArgs::Call& call = *args.call;
  const int64_t present = keys_present(args, chunk), first = chunk * attention_chunk;
  if (call.kv_dtype == DType::i8) find_scales(args.keys, args.kv_head, first, present, s.k_scales, s.v_scales);
  if (reads_in_place(args)) return find_chunk<T, Dot>(args, chunk, s, window);
  if constexpr (Dot::width != 4) {
    find_rows<T>(args.keys, args.kv_head, first, present, s.rows);
    load_transposed<T, Dot>(s.k_rows(), present, call.head_dim, s.keys);
    load_values<T, Dot>(s.v_rows(), present, call.head_dim, call.padded_dim, s.values);
  }
}

// ---- a block of rows with one chunk ----

LATHE_INLINE VecI first_lanes() {
  VecI v;
  for (int i = 0; i < lanes; ++i) v[i] = i;
  return v;
}

// All ones in the lanes of vector v (of a chunk) that the span holds.
LATHE_INLINE VecI in_span(KeySpan span, int v, VecI lane) {
  const VecI key = lane + v * lanes;
  return (key >= span.begin) & (key < span.end);
}

// The first V vectors of products q·k in a row become 2^(score − maximum), 0 where masked; the values' scales are put
// on after the sum. For Bf16Dot they are rounded to bf16: row[i] holds those of keys 2i and 2i + 1. All in registers
// where there are as many: in two passes over the row with a third that rounded, this took a fifth longer.
template <class Dot, bool masked, int V, class Prefetch>
LATHE_INLINE void row_probabilities(float* row, KeySpan span, const Scoring& scoring, float* maximum, float* sum,
                                    Prefetch& prefetch) {
  const VecI lane = first_lanes();
  Vec p[V];
  for (int v = 0; v < V; ++v) p[v] = load(row + v * lanes);
  if (scoring.k_scales != nullptr)
    for (int v = 0; v < V; ++v) p[v] = p[v] * load(scoring.k_scales + v * lanes);
  if (scoring.softcap > 0)
    for (int v = 0; v < V; ++v) p[v] = score_of(p[v], scoring);
  Vec highest = splat(no_score);
  for (int v = 0; v < V; ++v) {
    if (masked) p[v] = select(in_span(span, v, lane), p[v], splat(no_score));
    highest = max(p[v], highest);
  }
  prefetch.step();
  *maximum = max_lanes(highest) * scoring.factor;
  Vec total = zero();
  for (int v = 0; v < V; ++v) {
    p[v] = exp2_below_zero(fma(p[v], splat(scoring.factor), splat(-*maximum)));
    if (masked) p[v] = select(in_span(span, v, lane), p[v], zero());
    total = total + p[v];
    prefetch.step();
  }
  *sum = sum_lanes(total);
  if (scoring.v_scales != nullptr)
    for (int v = 0; v < V; ++v) p[v] = p[v] * load(scoring.v_scales + v * lanes);
#if defined(LATHE_ISA_avx512_bf16)
  if constexpr (Dot::width == 4) return store_quantised_weights(row, p);
  if constexpr (Dot::width == 2) {
    for (int v = 0; v < V; v += 2)
      store(row + v / 2 * lanes, (Vec)neighbours_to_pairs(p[v], v + 1 < V ? p[v + 1] : zero()));
    return;
  }
#endif
  for (int v = 0; v < V; ++v) store(row + v * lanes, p[v]);
}

// Of the first 16, 32, 48 or 64 keys.
template <class Dot, bool masked, class Prefetch>
LATHE_INLINE void row_probabilities(float* row, int64_t keys, KeySpan span, const Scoring& scoring, float* maximum,
                                    float* sum, Prefetch& prefetch) {
  constexpr int V = row_padding / lanes;
  switch (keys / row_padding) {
    case 1: return row_probabilities<Dot, masked, V>(row, span, scoring, maximum, sum, prefetch);
    case 2: return row_probabilities<Dot, masked, 2 * V>(row, span, scoring, maximum, sum, prefetch);
    case 3: return row_probabilities<Dot, masked, 3 * V>(row, span, scoring, maximum, sum, prefetch);
    case 4: return row_probabilities<Dot, masked, 4 * V>(row, span, scoring, maximum, sum, prefetch);
  }
}

// q: rows of scratch, query_row() apart; keys and values as score() and multiply() take them; p: scratch [rows][64].
// With Bf16Dot q's rows hold head_dim / 2 pairs, and one k of the values is two keys. Values must be finite even where
// masked: 0 · infinity is not 0.
template <class Dot, class Keys, class Values, class Prefetch>
LATHE_INLINE void attend_block(int rows, const float* q, Keys keys, Values values, int64_t head_dim, int64_t padded_dim,
                               const Scoring& scoring, float* p, const ChunkResult& result, Prefetch& prefetch) {
  int begin = attention_chunk, end = 0;
  for (int r = 0; r < rows; ++r) {
    if (result.span[r].begin >= result.span[r].end) continue;
    if (result.span[r].begin < begin) begin = result.span[r].begin;
    if (result.span[r].end > end) end = result.span[r].end;
  }
  if (begin >= end) return;
  const int64_t key_count = padded_keys(end);
  score<Dot>(rows, Factor{q, query_row<Dot>(padded_dim), 1}, keys, head_dim / Dot::width, key_count, p, prefetch);
  for (int r = 0; r < rows; ++r) {
    const KeySpan span = result.span[r];
    float* row = p + r * attention_chunk;
    if (span.begin == 0 && span.end == key_count) {
      row_probabilities<Dot, false>(row, key_count, span, scoring, result.maximum + r, result.sum + r, prefetch);
    } else {
      row_probabilities<Dot, true>(row, key_count, span, scoring, result.maximum + r, result.sum + r, prefetch);
    }
  }
  multiply<Chain::starts, Dot>(rows, Factor{p, attention_chunk, 1}, values, begin / Dot::width,
                               (end + Dot::width - 1) / Dot::width, result.out, padded_dim, padded_dim, prefetch);
}

// With the keys and values that load_chunk() has put into scratch: once for every type that they had before.
template <class Dot>
__attribute__((noinline)) void attend_loaded(const AttentionTileArgs::Call& call, const Scratch& s, const float* q,
                                             int rows, const Scoring& scoring, const ChunkResult& result) {
  NoPrefetch none;
  attend_block<Dot>(rows, q, TransposedKeys{s.keys}, StridedRows{s.values, call.padded_dim}, call.head_dim,
                    call.padded_dim, scoring, s.p, result, none);
}

template <class T, class Dot>
void attend_rows(const AttentionTileArgs& args, const Scratch& s, ChunkWindow& window, int64_t row, int rows,
                 const ChunkResult& result) {
  const AttentionTileArgs::Call& call = *args.call;
  const Scoring scoring = tile_scoring(call, s.k_scales, s.v_scales);
  const float* const q = s.q + row * query_row<Dot>(call.padded_dim);
  const auto attend = [&](const auto& keys, const auto& values, auto& prefetch) {
    attend_block<Dot>(rows, q, keys, values, call.head_dim, call.padded_dim, scoring, s.p, result, prefetch);
  };
  const ChunkAddresses& in_place = window.chunks[window.current];
#if defined(LATHE_ISA_avx512_bf16)
  if constexpr (Dot::width == 4) return attend(Int8Keys{in_place.k}, Int8Values{in_place.v}, window.prefetch);
#endif
  if constexpr (Dot::width != 4) {
    if (reads_in_place(args))
      return attend(KeysInPlace<typename Dot::template KeyWord<T>>{in_place.k}, ValuesInPlace<T>{in_place.v},
                    window.prefetch);
    attend_loaded<Dot>(call, s, q, rows, scoring, result);
  }
}

// ---- a tile ----

// T is the type of keys and values.
template <class T, class Dot>
void tile(const AttentionTileArgs& args) {
  const int64_t rows = rows_of(args), dim = args.call->padded_dim;
  const Scratch s = scratch_of(args);
  ChunkWindow window;
  load_queries<Dot>(args, s.q);
  clear(s.state, rows, dim);
  for (int64_t chunk = args.chunk_begin; chunk < args.chunk_end; ++chunk) {
    load_chunk<T, Dot>(args, chunk, s, window);
    for (int64_t row = 0; row < rows;) {
      const int count = next_block(rows - row);
      const RowStates state = from_row(s.state, row, dim);
      // The first chunk's result is the state itself: merging it into nothing multiplies by 1 and adds 0.
      ChunkResult result = chunk == args.chunk_begin ? ChunkResult{{}, state.maximum, state.sum, state.out} : s.result;
      find_spans(args, row, count, chunk, result.span);
      attend_rows<T, Dot>(args, s, window, row, count, result);
      if (chunk != args.chunk_begin) merge_chunk(count, result, state, dim);
      row += count;
    }
  }
  write_rows(args, s.state);
}

template <class T, class Dot>
void tile_chunks(const AttentionTileArgs& args) {
  const int64_t rows = rows_of(args);
  const Scratch s = scratch_of(args);
  ChunkWindow window;
  load_queries<Dot>(args, s.q);
  for (int64_t chunk = args.chunk_begin; chunk < args.chunk_end; ++chunk) {
    load_chunk<T, Dot>(args, chunk, s, window);
    for (int64_t row = 0; row < rows;) {
      const int count = next_block(rows - row);
      attend_rows<T, Dot>(args, s, window, row, count, partial_result(args, chunk, row, count));
      row += count;
    }
  }
}

}  // namespace

void few_rows_tile(const AttentionTileArgs& args) {
  with_types(*args.call, [&](auto element, auto dot) { tile<decltype(element), decltype(dot)>(args); });
}

void few_rows_tile_chunks(const AttentionTileArgs& args) {
  with_types(*args.call, [&](auto element, auto dot) { tile_chunks<decltype(element), decltype(dot)>(args); });
}

}  // namespace lathe::kernels::LATHE_ISA
