// What tiles of few and of many query rows have in common: where a chunk's keys lie, how its values are laid out, and how a tile's
// result is written. Included by this folder's sources only.
#pragma once

#include "kernels/attention/cpu/chunk.h"
#include "kernels/attention/cpu/row_lanes.h"
#include "kernels/attention/cpu/tile.h"

namespace lathe::kernels::LATHE_ISA {

LATHE_INLINE int64_t rows_of(const TileTask& task) { return task.tokens * task.call->group; }

// Keys of the chunk that some row of the tile may see: all that lie before the last row's position.
LATHE_INLINE int64_t keys_present(const TileTask& task, int64_t chunk) {
  return least(attention_chunk, task.first_position + task.tokens - chunk * attention_chunk);
}

// The rows of keys [first, first + count), then their values'; both are filled to 64 with their last.
template <class T>
static inline void find_rows(const KeyRows& keys, int64_t kv_head, int64_t first, int64_t count, const void** rows) {
  const Side k = keys_of<T>(keys, kv_head), v = values_of<T>(keys, kv_head);
  for (int64_t i = 0; i < attention_chunk; ++i) {
    const int64_t position = first + least(i, count - 1);
    rows[i] = row_of(keys, k, position);
    rows[attention_chunk + i] = row_of(keys, v, position);
  }
}

// Scales of the chunk that starts at `first`: 0 past the keys present.
static inline void find_scales(const KeyRows& keys, int64_t kv_head, int64_t first, int64_t count, float* k_scales,
                               float* v_scales) {
  const int32_t* page = keys.pages + first / keys.page_size;
  for (int64_t i = 0; i < count; ++page) {
    const int64_t start = *page * keys.scale_page + kv_head * keys.scale_head - i;
    for (int64_t end = least(count, i + keys.page_size); i < end; ++i) {
      k_scales[i] = keys.k_scales[start + i];
      v_scales[i] = keys.v_scales[start + i];
    }
  }
  for (int64_t i = count; i < attention_chunk; ++i) k_scales[i] = v_scales[i] = 0;
}

// The scales are those of the chunk's rows, which only i8 pages have.
LATHE_INLINE Scoring tile_scoring(const TileCall& call, const float* k_scales, const float* v_scales) {
  const bool scaled = call.kv_dtype == DType::i8;
  return scoring_of(call.scale, call.softcap, scaled ? k_scales : nullptr, scaled ? v_scales : nullptr);
}

static inline void clear(const RowStates& state, int64_t rows, int64_t padded_dim) {
  for (int64_t r = 0; r < rows + tile_padding; ++r) {
    state.maximum[r] = no_score;
    state.sum[r] = 0;
  }
  __builtin_memset(state.out, 0, static_cast<size_t>(rows * padded_dim) * sizeof(float));
}

// out = state.out / sum, lse = maximum · ln 2 + log(sum); a row that attended to nothing gives 0 and −inf.
template <class T>
static inline void write_rows(const TileTask& task, const RowStates& state) {
  const TileCall& call = *task.call;
  const int64_t rows = rows_of(task);
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t token = task.first_token + r / call.group;
    const int64_t head = task.kv_head * call.group + r % call.group;
    T* out = static_cast<T*>(call.out) + token * call.out_token + head * call.out_head;
    const float sum = state.sum[r];
    const Vec factor = splat(sum == 0 ? 0.0f : 1.0f / sum);
    for (int64_t d = 0; d < call.head_dim; d += lanes) {
      // + 0 makes any zero a +0: the sign of an underflow is the one thing that an empty chunk could change.
      const Vec value = load(state.out + r * call.padded_dim + d) * factor + splat(0.0f);
      if (d + lanes <= call.head_dim) {
        store(out + d, value);
      } else {
        store_partial(out + d, value, static_cast<int>(call.head_dim - d));
      }
    }
    if (call.lse != nullptr) call.lse[head * call.lse_head + token] = fma(state.maximum[r], log_2, __builtin_logf(sum));
  }
}

static inline void write_rows(const TileTask& task, const RowStates& state) {
  with_element(task.call->dtype, [&](auto element) { write_rows<decltype(element)>(task, state); });
}

template <class Body>
LATHE_INLINE void with_types(const TileCall& call, Body body) {
  if (call.kv_dtype == DType::i8) {
#if defined(LATHE_ISA_avx512_bf16)
    if (call.dtype == DType::bf16 && sums_as_bytes(call.head_dim)) return body(int8_t{}, Bytes{});
#endif
    return body(int8_t{}, Elements{});
  }
  with_products(call.dtype, call.kv_dtype, call.head_dim, body);
}

}  // namespace lathe::kernels::LATHE_ISA
