#include "kernels/attention/cpu/many_rows.h"
#include "kernels/attention/cpu/tile_rows.h"
#include "kernels/attention/cpu/transposed_rows.h"

namespace lathe::kernels::LATHE_ISA {
namespace {

// A tile's scratch, cut up. tile_scratch_floats() counts the same pieces.
struct TileScratch {
  float* q;  // [rows], query_row() apart
  RowStates state;
  float* keys;    // [head_dim][64]
  float* values;  // [64][padded_dim]
  float* p;       // [block_rows][64]
  BlockResult block;
  const void** rows;           // [2 · 64], of the chunk: keys, then values; where they are not read in place
  float *k_scales, *v_scales;  // [64]; of i8 pages

  const void** k_rows() const { return rows; }
  const void** v_rows() const { return rows + attention_chunk; }
};

// The chunk that is computed and those after it, whose rows are asked for meanwhile; of tiles that read in place.
struct Chunks {
  ChunkRows rows[1 + chunks_ahead];
  bool known[1 + chunks_ahead];
  int current = 0;
  Ahead ahead;

  int place(int distance) const { return (current + distance) % (1 + chunks_ahead); }
};

TileScratch cut(const TileTask& task) {
  const int64_t rows = task.tokens * task.call->group, dim = task.call->padded_dim;
  TileScratch s;
  float* next = task.scratch;
  const auto take = [&next](int64_t floats) {
    float* piece = next;
    next += (floats + tile_padding - 1) / tile_padding * tile_padding;
    return piece;
  };
  s.rows = reinterpret_cast<const void**>(take(4 * attention_chunk));
  s.k_scales = take(attention_chunk);
  s.v_scales = take(attention_chunk);
  s.keys = take(attention_chunk * dim);
  s.values = take(attention_chunk * dim);
  s.p = take(block_rows * attention_chunk);
  s.block.maximum = take(tile_padding);
  s.block.sum = take(tile_padding);
  s.block.out = take(block_rows * dim);
  s.q = take(rows * (2 * dim + tile_padding));  // the longest, of Bytes
  s.state.out = take(rows * dim);
  s.state.maximum = take(rows + tile_padding);
  s.state.sum = take(rows + tile_padding);
  return s;
}

// Calls body with each of the tile's rows and where it goes in scratch.
template <class T, class Step, class Body>
LATHE_INLINE void for_queries(const TileTask& task, float* q, Body body) {
  const TileCall& call = *task.call;
  const T* base =
      static_cast<const T*>(call.q) + task.first_token * call.q_token + task.kv_head * call.group * call.q_head;
  for (int64_t token = 0; token < task.tokens; ++token)
    for (int64_t h = 0; h < call.group; ++h, q += query_row<Step>(call.padded_dim))
      body(base + token * call.q_token + h * call.q_head, q);
}

void load_queries(const TileTask& task, float* to, Elements) {
  const TileCall& call = *task.call;
  with_element(call.dtype, [&](auto element) {
    for_queries<decltype(element), Elements>(task, to, [&](const auto* row, float* q) {
      load_padded(row, call.head_dim, call.padded_dim, q);
      if (call.kv_dtype != DType::i8) return;
      for (int64_t d = 0; d < call.padded_dim; d += lanes) store(q + d, load(q + d) * splat(1.0f / i8_column_unit));
    });
  });
}
#if defined(LATHE_ISA_avx512_bf16)
void load_queries(const TileTask& task, float* to, Pairs) {
  const TileCall& call = *task.call;
  for_queries<bf16, Pairs>(task, to, [&](const bf16* row, float* q) {
    // Bits. A call of memcpy for each took a twelfth of short sequences.
    load_padded(reinterpret_cast<const float*>(row), call.head_dim / 2, call.padded_dim / 2, q);
  });
}
void load_queries(const TileTask& task, float* to, Bytes) {
  for_queries<bf16, Bytes>(task, to, [&](const bf16* row, float* q) { load_byte_query(row, task.call->head_dim, q); });
}
#endif

void spans_of(const TileTask& task, int64_t row, int rows, int64_t chunk, KeySpan* span) {
  for (int r = 0; r < rows; ++r)
    span[r] = visible_keys(task.first_position + (row + r) / task.call->group, task.call->window, chunk);
}

bool waits(const TileTask& task) { return rows_of(task) <= rows_that_wait; }
bool reads_in_place(const TileTask& task) { return waits(task) && task.call->head_dim == task.call->padded_dim; }

// What to ask for while a chunk is computed: those after it, in equal parts wherever a strip of keys or a value is read.
template <class T, class Step>
Ahead asked_evenly(const TileTask& task, const Chunks& chunks) {
  const TileCall& call = *task.call;
  if (!chunks.known[chunks.place(1)]) return {};
  const ChunkRows* rows[chunks_ahead];
  // In place of what is not known, rows that are in the cache.
  for (int i = 0; i < chunks_ahead; ++i)
    rows[i] = &chunks.rows[chunks.place(chunks.known[chunks.place(i + 1)] ? i + 1 : 0)];
  const int64_t row_bytes = call.head_dim * static_cast<int64_t>(sizeof(T));
  const int64_t strips = attention_chunk / lanes * (row_bytes / 16);
  const int64_t blocks = (rows_of(task) + block_rows - 1) / block_rows;
  const int64_t vectors = (call.padded_dim + block_vectors * lanes - 1) / (block_vectors * lanes);
  const int64_t passes = Step::width == 4 ? 2 : 1;  // of byte_products.h over keys and over values
  const int64_t product_asks = passes * (strips + vectors * (attention_chunk / Step::width));
  return {rows, row_bytes, sizeof(T) == 1, blocks * product_asks + rows_of(task) * probability_asks};
}

// The rows of the chunk that is computed `distance` chunks after this one, by this task or the next.
template <class T>
void find_rows_after(const TileTask& task, int64_t chunk, int distance, Chunks& chunks) {
  const TileTask* owner = &task;
  int64_t wanted = chunk + distance;
  if (wanted >= task.chunk_end && task.after != nullptr) {
    owner = task.after;
    wanted += owner->chunk_begin - task.chunk_end;
  }
  const int place = chunks.place(distance);
  chunks.known[place] = owner->tokens > 0 && wanted < owner->chunk_end;
  if (!chunks.known[place]) return;
  const int64_t first = wanted * attention_chunk, present = keys_present(*owner, wanted);
  find_groups<T>(owner->keys, owner->kv_head, first, present, chunks.rows[place]);
}

template <class T, class Step>
void find_chunk(const TileTask& task, int64_t chunk, const TileScratch& s, Chunks& chunks) {
  const TileCall& call = *task.call;
  if (chunk == task.chunk_begin) {
    for (int i = 0; i < chunks_ahead; ++i) find_rows_after<T>(task, chunk, i, chunks);
  } else {
    chunks.current = chunks.place(1);
  }
  find_rows_after<T>(task, chunk, chunks_ahead, chunks);
  chunks.ahead = asked_evenly<T, Step>(task, chunks);
  ChunkRows& rows = chunks.rows[chunks.current];
  const int64_t present = keys_present(task, chunk), first = chunk * attention_chunk;
  make_whole<T>(task.keys, keys_of<T>(task.keys, task.kv_head), first, present, call.head_dim, s.keys, rows.k);
  make_whole<T>(task.keys, values_of<T>(task.keys, task.kv_head), first, present, call.head_dim, s.values, rows.v);
}

template <class T, class Step>
void load_chunk(const TileTask& task, int64_t chunk, const TileScratch& s, Chunks& chunks) {
  const TileCall& call = *task.call;
  const int64_t present = keys_present(task, chunk), first = chunk * attention_chunk;
  if (call.kv_dtype == DType::i8) find_scales(task.keys, task.kv_head, first, present, s.k_scales, s.v_scales);
  if (reads_in_place(task)) return find_chunk<T, Step>(task, chunk, s, chunks);
  if constexpr (Step::width != 4) {
    find_rows<T>(task.keys, task.kv_head, first, present, s.rows);
    using Element = typename Step::template KeyElement<T>;
    NothingAhead nothing;
    transpose_rows<Element>(s.k_rows(), present, call.head_dim / Step::width, s.keys, nothing);
    load_values<T, Step>(s.v_rows(), present, call.head_dim, call.padded_dim, s.values);
  }
}

template <class T, class Step>
void attend_rows(const TileTask& task, const TileScratch& s, Chunks& chunks, int64_t row, int rows,
                 const BlockResult& result) {
  const TileCall& call = *task.call;
  const Scoring scoring = tile_scoring(call, s.k_scales, s.v_scales);
  const auto attend = [&](const auto& keys, const auto& values, auto& ahead) {
    attend_block<Step>(rows, s.q + row * query_row<Step>(call.padded_dim), keys, values, call.head_dim, call.padded_dim,
                       scoring, s.p, result, ahead);
  };
  const ChunkRows& in_place = chunks.rows[chunks.current];
#if defined(LATHE_ISA_avx512_bf16)
  if constexpr (Step::width == 4) return attend(ByteKeys{in_place.k}, ByteValues{in_place.v}, chunks.ahead);
#endif
  if constexpr (Step::width != 4) {
    if (reads_in_place(task))
      return attend(KeysInPlace<typename Step::template KeyElement<T>>{in_place.k}, ValuesInPlace<T>{in_place.v},
                    chunks.ahead);
    NothingAhead nothing;
    attend(TransposedKeys{s.keys}, EvenRows{s.values, call.padded_dim}, nothing);
  }
}

RowStates from_row(const RowStates& state, int64_t row, int64_t padded_dim) {
  return {state.maximum + row, state.sum + row, state.out + row * padded_dim};
}

// T is the type of keys and values, Step how products are summed.
template <class T, class Step>
void tile(const TileTask& task) {
  const int64_t rows = rows_of(task), dim = task.call->padded_dim;
  const TileScratch s = cut(task);
  Chunks chunks;
  load_queries(task, s.q, Step{});
  clear(s.state, rows, dim);
  for (int64_t chunk = task.chunk_begin; chunk < task.chunk_end; ++chunk) {
    load_chunk<T, Step>(task, chunk, s, chunks);
    for (int64_t row = 0; row < rows;) {
      const int count = next_block(rows - row);
      const RowStates state = from_row(s.state, row, dim);
      // The first chunk's result is the state itself: merging it into nothing multiplies by 1 and adds 0.
      BlockResult result = chunk == task.chunk_begin ? BlockResult{{}, state.maximum, state.sum, state.out} : s.block;
      spans_of(task, row, count, chunk, result.span);
      attend_rows<T, Step>(task, s, chunks, row, count, result);
      if (chunk != task.chunk_begin) merge_block(count, result, state, dim);
      row += count;
    }
  }
  write_rows(task, s.state);
}

BlockResult partial_block(const TileTask& task, int64_t chunk, int64_t row, int count) {
  const int64_t first = chunk * rows_of(task) + row;
  BlockResult result;
  result.maximum = task.partials.maximum + first;
  result.sum = task.partials.sum + first;
  result.out = task.partials.out + first * task.call->padded_dim;
  spans_of(task, row, count, chunk, result.span);
  return result;
}

template <class T, class Step>
void tile_chunks(const TileTask& task) {
  const int64_t rows = rows_of(task);
  const TileScratch s = cut(task);
  Chunks chunks;
  load_queries(task, s.q, Step{});
  for (int64_t chunk = task.chunk_begin; chunk < task.chunk_end; ++chunk) {
    load_chunk<T, Step>(task, chunk, s, chunks);
    for (int64_t row = 0; row < rows;) {
      const int count = next_block(rows - row);
      attend_rows<T, Step>(task, s, chunks, row, count, partial_block(task, chunk, row, count));
      row += count;
    }
  }
}

void merge_partials(const TileTask& task, const RowStates& state) {
  const int64_t rows = rows_of(task), dim = task.call->padded_dim;
  clear(state, rows, dim);
  for (int64_t chunk = task.chunk_begin; chunk < task.chunk_end; ++chunk) {
    for (int64_t row = 0; row < rows;) {
      const int count = next_block(rows - row);
      merge_block(count, partial_block(task, chunk, row, count), from_row(state, row, dim), dim);
      row += count;
    }
  }
}

}  // namespace

void attention_tile(const TileTask& task) {
  if (!waits(task)) return many_rows_tile(task);
  with_types(*task.call, [&](auto element, auto step) { tile<decltype(element), decltype(step)>(task); });
}

void attention_tile_chunks(const TileTask& task) {
  if (!waits(task)) return many_rows_tile_chunks(task);
  with_types(*task.call, [&](auto element, auto step) { tile_chunks<decltype(element), decltype(step)>(task); });
}

void attention_tile_merge(const TileTask& task) {
  const TileScratch s = cut(task);
  merge_partials(task, s.state);
  write_rows(task, s.state);
}

}  // namespace lathe::kernels::LATHE_ISA
