#include "kernels/attention/chunk.h"
#include "kernels/attention/tile.h"
#include "kernels/attention/transpose.h"

namespace lathe::kernels::LATHE_ISA {
namespace {

// A tile's scratch, cut up. tile_scratch_floats() counts the same pieces.
struct TileScratch {
  float* q;  // [rows][padded_dim]
  RowStates state;
  float* keys;    // [head_dim][64]
  float* values;  // [64][padded_dim]
  float* p;       // [block_rows][64]
  BlockResult block;
  const void** k_rows;  // [64]
  const void** v_rows;  // [64]
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
  s.k_rows = reinterpret_cast<const void**>(take(2 * attention_chunk));
  s.v_rows = reinterpret_cast<const void**>(take(2 * attention_chunk));
  s.keys = take(attention_chunk * dim);
  s.values = take(attention_chunk * dim);
  s.p = take(block_rows * attention_chunk);
  s.block.maximum = take(tile_padding);
  s.block.sum = take(tile_padding);
  s.block.out = take(block_rows * dim);
  s.q = take(rows * dim);
  s.state.out = take(rows * dim);
  s.state.maximum = take(rows + tile_padding);
  s.state.sum = take(rows + tile_padding);
  return s;
}

int64_t rows_of(const TileTask& task) { return task.tokens * task.call->group; }

template <class T>
void load_queries(const TileTask& task, float* q) {
  const TileCall& call = *task.call;
  const T* base = static_cast<const T*>(call.q) + task.first_token * call.q_token +
                  task.kv_head * call.group * call.q_head;
  for (int64_t token = 0; token < task.tokens; ++token) {
    for (int64_t h = 0; h < call.group; ++h, q += call.padded_dim) {
      const T* row = base + token * call.q_token + h * call.q_head;
      for (int64_t d = 0; d < call.padded_dim; d += lanes) {
        const int64_t left = call.head_dim - d;
        store(q + d, left >= lanes ? load(row + d) : left > 0 ? load_partial(row + d, static_cast<int>(left)) : zero());
      }
    }
  }
}

template <class T>
void find_rows(const KeyRows& keys, int64_t kv_head, int64_t first, int64_t count, const void** k_rows,
               const void** v_rows) {
  const T* k = static_cast<const T*>(keys.k) + kv_head * keys.k_head;
  const T* v = static_cast<const T*>(keys.v) + kv_head * keys.v_head;
  for (int64_t i = 0; i < count; ++i) {
    int64_t token = first + i, page = 0;
    if (keys.pages != nullptr) {
      page = keys.pages[token / keys.page_size];
      token %= keys.page_size;
    }
    k_rows[i] = k + page * keys.k_page + token * keys.k_token;
    v_rows[i] = v + page * keys.v_page + token * keys.v_token;
  }
}

template <class T>
void pad_values(const T* const* rows, int64_t count, int64_t dim, int64_t padded_dim, float* out) {
  for (int64_t j = 0; j < count; ++j, out += padded_dim) {
    for (int64_t d = 0; d < padded_dim; d += lanes) {
      const int64_t left = dim - d;
      store(out + d,
            left >= lanes ? load(rows[j] + d) : left > 0 ? load_partial(rows[j] + d, static_cast<int>(left)) : zero());
    }
  }
}

void spans_of(const TileTask& task, int64_t row, int rows, int64_t chunk, KeySpan* span) {
  for (int r = 0; r < rows; ++r)
    span[r] = visible_keys(task.first_position + (row + r) / task.call->group, task.call->window, chunk);
}

// Keys of the chunk that some row of the tile may see: all that lie before the last row's position.
int64_t keys_present(const TileTask& task, int64_t chunk) {
  const int64_t present = task.first_position + task.tokens - chunk * attention_chunk;
  return present < attention_chunk ? present : attention_chunk;
}

template <class T>
void load_chunk(const TileTask& task, int64_t chunk, const TileScratch& s) {
  const TileCall& call = *task.call;
  const int64_t present = keys_present(task, chunk);
  find_rows<T>(task.keys, task.kv_head, chunk * attention_chunk, present, s.k_rows, s.v_rows);
  transpose_rows(reinterpret_cast<const T* const*>(s.k_rows), static_cast<int>(present), call.head_dim, s.keys);
  if (call.head_dim != call.padded_dim)
    pad_values(reinterpret_cast<const T* const*>(s.v_rows), present, call.head_dim, call.padded_dim, s.values);
}

template <class T>
void attend_rows(const TileTask& task, const TileScratch& s, int64_t row, int rows, const BlockResult& result) {
  const TileCall& call = *task.call;
  const float* q = s.q + row * call.padded_dim;
  if (call.head_dim == call.padded_dim) {
    attend_block(rows, q, s.keys, TableRows<T>{reinterpret_cast<const T* const*>(s.v_rows)}, call.head_dim,
                 call.padded_dim, call.scale, call.softcap, s.p, result);
  } else {
    attend_block(rows, q, s.keys, EvenRows{s.values, call.padded_dim}, call.head_dim, call.padded_dim, call.scale,
                 call.softcap, s.p, result);
  }
}

RowStates from_row(const RowStates& state, int64_t row, int64_t padded_dim) {
  return {state.maximum + row, state.sum + row, state.out + row * padded_dim};
}

void clear(const RowStates& state, int64_t rows, int64_t padded_dim) {
  for (int64_t r = 0; r < rows + tile_padding; ++r) {
    state.maximum[r] = no_score;
    state.sum[r] = 0;
  }
  __builtin_memset(state.out, 0, static_cast<size_t>(rows * padded_dim) * sizeof(float));
}

// out = state.out / sum, lse = maximum + log(sum); a row that attended to nothing gives 0 and −inf.
template <class T>
void write_rows(const TileTask& task, const RowStates& state) {
  const TileCall& call = *task.call;
  const int64_t rows = rows_of(task);
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t token = task.first_token + r / call.group;
    const int64_t head = task.kv_head * call.group + r % call.group;
    T* out = static_cast<T*>(call.out) + token * call.out_token + head * call.out_head;
    const float sum = state.sum[r];
    const Vec divisor = splat(sum == 0 ? 1.0f : sum);
    for (int64_t d = 0; d < call.head_dim; d += lanes) {
      const Vec value = load(state.out + r * call.padded_dim + d) / divisor;
      if (d + lanes <= call.head_dim) {
        store(out + d, value);
      } else {
        store_partial(out + d, value, static_cast<int>(call.head_dim - d));
      }
    }
    if (call.lse != nullptr) call.lse[head * call.lse_head + token] = state.maximum[r] + __builtin_logf(sum);
  }
}

template <class T>
void tile(const TileTask& task) {
  const int64_t rows = rows_of(task), dim = task.call->padded_dim;
  TileScratch s = cut(task);
  load_queries<T>(task, s.q);
  clear(s.state, rows, dim);
  for (int64_t chunk = task.chunk_begin; chunk < task.chunk_end; ++chunk) {
    load_chunk<T>(task, chunk, s);
    for (int64_t row = 0; row < rows;) {
      const int count = next_block(rows - row);
      spans_of(task, row, count, chunk, s.block.span);
      attend_rows<T>(task, s, row, count, s.block);
      merge_block(count, s.block, from_row(s.state, row, dim), dim);
      row += count;
    }
  }
  write_rows<T>(task, s.state);
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

template <class T>
void tile_chunks(const TileTask& task) {
  const int64_t rows = rows_of(task);
  const TileScratch s = cut(task);
  load_queries<T>(task, s.q);
  for (int64_t chunk = task.chunk_begin; chunk < task.chunk_end; ++chunk) {
    load_chunk<T>(task, chunk, s);
    for (int64_t row = 0; row < rows;) {
      const int count = next_block(rows - row);
      attend_rows<T>(task, s, row, count, partial_block(task, chunk, row, count));
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

void attention_tile(const TileTask& task) { task.call->is_bf16 ? tile<bf16>(task) : tile<float>(task); }

void attention_tile_chunks(const TileTask& task) {
  task.call->is_bf16 ? tile_chunks<bf16>(task) : tile_chunks<float>(task);
}

void attention_tile_merge(const TileTask& task) {
  const TileScratch s = cut(task);
  merge_partials(task, s.state);
  task.call->is_bf16 ? write_rows<bf16>(task, s.state) : write_rows<float>(task, s.state);
}

}  // namespace lathe::kernels::LATHE_ISA
