// Query rows lie in the lanes: a block of 64 rows is turned over once for a tile, keys are broadcast from where they were copied, and
// maxima, sums and merges go down the lanes without a step across them. With keys in the lanes every chunk had to be turned over, and every
// row's maximum and sum cost two trees across a vector.
#include "kernels/attention/cpu/byte_lanes.h"
#include "kernels/attention/cpu/many_rows.h"
#include "kernels/attention/cpu/tile_rows.h"

namespace lathe::kernels::LATHE_ISA {
namespace {

constexpr int64_t side = 64;  // rows of a block, keys of a chunk
static_assert(side == attention_chunk && side == transposed_row);

// A tile's scratch, cut up. many_rows_scratch_floats() counts the same pieces.
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

int64_t blocks_of(const TileTask& task) { return (rows_of(task) + side - 1) / side; }

Scratch cut(const TileTask& task) {
  const int64_t dim = task.call->padded_dim, rows = blocks_of(task) * side;
  float* next = task.scratch;
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
  s.state.maximum = take(rows + tile_padding);
  s.state.sum = take(rows + tile_padding);
  return s;
}

// Rows [first, first + count) of a tile against one chunk.
struct Block {
  int64_t first, count, chunk;
  int64_t keys;  // up to the last that some row sees, in whole vectors
};

int64_t position_of(const TileTask& task, int64_t row) { return task.first_position + row / task.call->group; }

template <class Step>
void load_queries(const TileTask& task, const Scratch& s) {
  const TileCall& call = *task.call;
  const auto* base = static_cast<const char*>(call.q);
  const int64_t rows = rows_of(task);
  for (int64_t first = 0; first < rows; first += side) {
    const int64_t count = least(side, rows - first);
    for (int64_t r = 0; r < count; ++r) {
      const int64_t token = task.first_token + (first + r) / call.group;
      const int64_t head = task.kv_head * call.group + (first + r) % call.group;
      s.rows[r] = base + (token * call.q_token + head * call.q_head) * size_of(call.dtype);
    }
#if defined(LATHE_ISA_avx512_bf16)
    if constexpr (Step::width == 4) {
      load_turned_digits(s.rows, count, call.head_dim, s.keys, s.q + first * call.padded_dim);
    } else
#endif
      with_element(call.dtype, [&](auto element) {
        load_turned<decltype(element), Step>(s.rows, count, call.head_dim, s.q + first * call.padded_dim);
      });
  }
}

template <class T, class Step>
void load_chunk(const TileTask& task, int64_t chunk, const Scratch& s) {
  const TileCall& call = *task.call;
  const int64_t present = keys_present(task, chunk), first = chunk * attention_chunk;
  find_rows<T>(task.keys, task.kv_head, first, present, s.rows);
  if (call.kv_dtype == DType::i8) find_scales(task.keys, task.kv_head, first, present, s.k_scales, s.v_scales);
  load_keys<T, Step>(s.rows, present, call.head_dim, s.keys);
  load_values<T, Step>(s.rows + attention_chunk, present, call.head_dim, call.padded_dim, s.values);
}

// s.scores[key][row] = q · k.
template <class Step>
void score_block(const TileTask& task, const Block& block, const Scratch& s) {
  const TileCall& call = *task.call;
  const auto first_row = [&](int64_t key) {
    return (block.chunk * attention_chunk + key - task.first_position) * call.group - block.first;
  };
  float* const turned = s.q + block.first * call.padded_dim;
  const int64_t keys = least(block.keys, keys_present(task, block.chunk));
#if defined(LATHE_ISA_avx512_bf16)
  if constexpr (Step::width == 4)
    return multiply_byte_keys(s.keys, keys, turned, block.count, call.head_dim, first_row, s.scores, s.p);
#endif
  multiply_keys<Step>(s.keys, keys, turned, block.count, call.head_dim, first_row, s.scores);
}

// l of chunk.h: lane j of a vector of keys is t[j] here.
LATHE_INLINE Vec sum_across(Vec (&t)[lanes]) {
#pragma GCC unroll 4
  for (int half = lanes / 2; half > 0; half /= 2)
#pragma GCC unroll 8
    for (int j = 0; j < half; ++j) t[j] = t[j] + t[j + half];
  return t[0];
}

// chunk_probabilities() of one vector of rows: s and p point to its lanes of the first key, V vectors of keys.
template <class Step, bool scaled, bool masked, int V>
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
      Step::store_weights(p + key / Step::stored_together * side, side, valued(key, even[v]), valued(key + 1, odd[v]));
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
  if constexpr (Step::width == 4) turn_to_digits<V>(p);
#endif
}

KeySpan span_of(const TileTask& task, int64_t row, int64_t chunk) {
  return visible_keys(position_of(task, row), task.call->window, chunk);
}

// Probabilities of the whole block in p, maxima and sums in s.maximum and s.sum.
template <class T, class Step>
void block_probabilities(const TileTask& task, const Block& block, const Scoring& scoring, const Scratch& s) {
  for (int64_t column = 0; column < block.count; column += lanes) {
    const int64_t row = block.first + column, last = least(row + lanes, block.first + block.count) - 1;
    const KeySpan first_span = span_of(task, row, block.chunk), last_span = span_of(task, last, block.chunk);
    const int64_t keys = first_span.begin < last_span.end ? whole_vectors(last_span.end) : 0;
    const bool masked = first_span.end < keys || last_span.begin > 0;
    SpanLanes span{};
    if (masked) span = span_lanes([&](int i) { return span_of(task, least(row + i, last), block.chunk); });
    float *const scores = s.scores + column, *const p = s.p + column;
    float *const maximum = s.maximum + column, *const sum = s.sum + column;
    const auto fill = [&](auto vectors) {
      constexpr bool scaled = sizeof(T) == 1;
      masked ? vector_probabilities<Step, scaled, true, vectors.count>(scores, span, scoring, p, maximum, sum)
             : vector_probabilities<Step, scaled, false, vectors.count>(scores, span, scoring, p, maximum, sum);
    };
    constexpr int V = tile_padding / lanes;
    switch (keys / tile_padding) {
      case 1: fill(Vectors<V>{}); break;
      case 2: fill(Vectors<2 * V>{}); break;
      case 3: fill(Vectors<3 * V>{}); break;
      case 4: fill(Vectors<4 * V>{}); break;
      default: store(maximum, splat(no_score)), store(sum, zero());
    }
    // Later rows of a block of the next product may see more.
    int64_t filled = keys / Step::stored_together, wanted = block.keys / Step::stored_together;
    if (Step::width == 4) filled = keys > 0 ? side : 0, wanted = side;  // digits are of whole chunks
    for (int64_t i = filled; i < wanted; ++i) store(p + i * side, zero());
  }
}

template <class Step>
auto chunk_values(const Scratch& s, int64_t dim) {
#if defined(LATHE_ISA_avx512_bf16)
  if constexpr (Step::width == 4) {
    return ByteWords{s.values, s.values + weight_words * dim};
  } else
#endif
    return EvenRows{s.values, dim};
}

// The block's rows of `out` from the probabilities and the chunk's values.
template <Chain chain, class Step>
void weigh_values(const TileTask& task, const Block& block, const Scratch& s, float* out) {
  const int64_t dim = task.call->padded_dim;
  for (int64_t row = 0; row < block.count;) {
    const int count = next_block(block.count - row);
    const int begin = span_of(task, block.first + row, block.chunk).begin;
    const int end = span_of(task, block.first + row + count - 1, block.chunk).end;
    if (begin < end)
      multiply<chain, Step>(count, Factor{s.p + row, 1, side}, chunk_values<Step>(s, dim), begin / Step::width,
                            (end + Step::width - 1) / Step::width, out + row * dim, dim, dim,
                            {s.before + row, s.after + row});
    row += count;
  }
}

// merge_block()'s maxima and sums, and the factors of what it merges. A row that sees none of the chunk keeps its own.
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

// A kv head's rows are short runs of a token's: read head by head from memory, they come at a third of the speed of all in their order.
// So the first head's tile brings those of all, which the second-level cache keeps for the others.
void bring_tokens(const TileTask& task) {
  const TileCall& call = *task.call;
  const KeyRows& keys = task.keys;
  const int64_t size = size_of(call.dtype), heads = call.kv_heads * call.group;
  const auto rows = [](const void* data, int64_t token, int64_t head) {
    return HeadRows{const_cast<void*>(data), token, head};
  };
  bring_rows<Use::read>(rows(call.q, call.q_token, call.q_head), heads, call.head_dim, size, task.first_token,
                        task.tokens);
  bring_rows<Use::written>(rows(call.out, call.out_token, call.out_head), heads, call.head_dim, size, task.first_token,
                           task.tokens);
  bring_rows<Use::read>(rows(keys.k, keys.k_token, keys.k_head), call.kv_heads, call.head_dim, size,
                        task.first_position, task.tokens);
  bring_rows<Use::read>(rows(keys.v, keys.v_token, keys.v_head), call.kv_heads, call.head_dim, size,
                        task.first_position, task.tokens);
}

// Calls body with every block of rows that sees some of the tile's chunks, chunk by chunk, its probabilities in s.
template <class T, class Step, class Body>
void for_blocks(const TileTask& task, const Scratch& s, Body body) {
  const Scoring scoring = tile_scoring(*task.call, s.k_scales, s.v_scales);
  const int64_t rows = rows_of(task);
  if (task.kv_head == 0 && task.keys.pages == nullptr) bring_tokens(task);
  load_queries<Step>(task, s);
  for (int64_t chunk = task.chunk_begin; chunk < task.chunk_end; ++chunk) {
    load_chunk<T, Step>(task, chunk, s);
    for (int64_t first = 0; first < rows; first += side) {
      Block block{first, least(side, rows - first), chunk, 0};
      const KeySpan last = span_of(task, first + block.count - 1, chunk);
      if (last.end <= span_of(task, first, chunk).begin) continue;
      block.keys = whole_vectors(last.end);
      score_block<Step>(task, block, s);
      block_probabilities<T, Step>(task, block, scoring, s);
      body(block);
    }
  }
}

template <class T, class Step>
void tile(const TileTask& task) {
  const Scratch s = cut(task);
  clear(s.state, blocks_of(task) * side, task.call->padded_dim);
  for_blocks<T, Step>(task, s, [&](const Block& block) {
    float* const out = s.state.out + block.first * task.call->padded_dim;
    merge_sums(block, s);
    if (block.chunk == task.chunk_begin) return weigh_values<Chain::starts, Step>(task, block, s, out);
    weigh_values<Chain::merges, Step>(task, block, s, out);
  });
  write_rows(task, s.state);
}

template <class T, class Step>
void tile_chunks(const TileTask& task) {
  const Scratch s = cut(task);
  for_blocks<T, Step>(task, s, [&](const Block& block) {
    const int64_t first = block.chunk * rows_of(task) + block.first;
    const size_t bytes = static_cast<size_t>(block.count) * sizeof(float);
    __builtin_memcpy(task.partials.maximum + first, s.maximum, bytes);
    __builtin_memcpy(task.partials.sum + first, s.sum, bytes);
    weigh_values<Chain::starts, Step>(task, block, s, task.partials.out + first * task.call->padded_dim);
  });
}

}  // namespace

void many_rows_tile(const TileTask& task) {
  with_types(*task.call, [&](auto element, auto step) { tile<decltype(element), decltype(step)>(task); });
}

void many_rows_tile_chunks(const TileTask& task) {
  with_types(*task.call, [&](auto element, auto step) { tile_chunks<decltype(element), decltype(step)>(task); });
}

}  // namespace lathe::kernels::LATHE_ISA
