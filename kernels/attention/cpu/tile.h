// What the forward's bodies for few and for many query rows share: a chunk's keys and their scales, and how a tile's
// result is written.
#pragma once

#include "kernels/attention/cpu/int8_pages/quantised.h"
#include "kernels/attention/cpu/key_addresses.h"
#include "kernels/attention/cpu/scratch_rows.h"
#include "kernels/attention/cpu/softmax.h"

namespace lathe::kernels::LATHE_ISA {

// The bodies that attention_tile and attention_tile_chunks choose from: the same bits.
void few_rows_tile(const AttentionTileArgs& args);
void few_rows_tile_chunks(const AttentionTileArgs& args);
void many_rows_tile(const AttentionTileArgs& args);
void many_rows_tile_chunks(const AttentionTileArgs& args);

LATHE_INLINE int64_t rows_of(const AttentionTileArgs& args) { return args.tokens * args.call->group; }

// Keys of the chunk that some row of the tile may see: all that lie before the last row's position.
LATHE_INLINE int64_t keys_present(const AttentionTileArgs& args, int64_t chunk) {
  return least(attention_chunk, args.first_position + args.tokens - chunk * attention_chunk);
}

// The rows of keys [first, first + count), then their values'; both are filled to 64 with their last.
template <class T>
static inline void find_rows(const KeysAndValues& keys, int64_t kv_head, int64_t first, int64_t count,
                             const void** rows) {
  const HeadAddresses k = head_addresses<T>(keys.k, kv_head), v = head_addresses<T>(keys.v, kv_head);
  for (int64_t i = 0; i < attention_chunk; ++i) {
    const int64_t position = first + least(i, count - 1);
    rows[i] = row_address(keys, k, position);
    rows[attention_chunk + i] = row_address(keys, v, position);
  }
}

// Scales of the chunk that starts at `first`: 0 past the keys present.
static inline void find_scales(const KeysAndValues& keys, int64_t kv_head, int64_t first, int64_t count,
                               float* k_scales, float* v_scales) {
  const int32_t* page = keys.pages + first / keys.page_size;
  for (int64_t i = 0; i < count; ++page) {
    const int64_t start = *page * keys.scale_page + kv_head * keys.scale_head - i;
    for (int64_t end = least(count, i + keys.page_size); i < end; ++i) {
      k_scales[i] = keys.k.scales[start + i];
      v_scales[i] = keys.v.scales[start + i];
    }
  }
  for (int64_t i = count; i < attention_chunk; ++i) k_scales[i] = v_scales[i] = 0;
}

// The scales are those of the chunk's rows, which only i8 pages have.
LATHE_INLINE Scoring tile_scoring(const AttentionTileArgs::Call& call, const float* k_scales, const float* v_scales) {
  const bool scaled = call.kv_dtype == DType::i8;
  return scoring_of(call.params, scaled ? k_scales : nullptr, scaled ? v_scales : nullptr);
}

LATHE_INLINE void find_spans(const AttentionTileArgs& args, int64_t row, int rows, int64_t chunk, KeySpan* span) {
  for (int r = 0; r < rows; ++r)
    span[r] = visible_keys(args.first_position + (row + r) / args.call->group, args.call->params.window, chunk);
}

// The place among the tile's partials of `count` rows, and what they see.
LATHE_INLINE ChunkResult partial_result(const AttentionTileArgs& args, int64_t chunk, int64_t row, int count) {
  const int64_t first = chunk * rows_of(args) + row;
  ChunkResult result;
  result.maximum = args.partials.maximum + first;
  result.sum = args.partials.sum + first;
  result.out = args.partials.out + first * args.call->padded_dim;
  find_spans(args, row, count, chunk, result.span);
  return result;
}

LATHE_INLINE RowStates from_row(const RowStates& state, int64_t row, int64_t padded_dim) {
  return {state.maximum + row, state.sum + row, state.out + row * padded_dim};
}

static inline void clear(const RowStates& state, int64_t rows, int64_t padded_dim) {
  for (int64_t r = 0; r < rows + row_padding; ++r) {
    state.maximum[r] = no_score;
    state.sum[r] = 0;
  }
  __builtin_memset(state.out, 0, static_cast<size_t>(rows * padded_dim) * sizeof(float));
}

// out = state.out / sum, lse = maximum · ln 2 + log(sum); a row that saw no key gives 0 and −inf.
template <class T>
static inline void write_rows(const AttentionTileArgs& args, const RowStates& state) {
  const AttentionTileArgs::Call& call = *args.call;
  const int64_t rows = rows_of(args);
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t token = args.first_token + r / call.group;
    const int64_t head = args.kv_head * call.group + r % call.group;
    T* out = row_of<T>(call.out, token, head);
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

static inline void write_rows(const AttentionTileArgs& args, const RowStates& state) {
  with_element(args.call->dtype, [&](auto element) { write_rows<decltype(element)>(args, state); });
}

// Calls body with an element of the type of keys and values, and the Dot of their products.
template <class Body>
LATHE_INLINE void with_types(const AttentionTileArgs::Call& call, Body body) {
  if (call.kv_dtype != DType::i8) return with_dot(call.pairs, call.dtype, call.kv_dtype, call.head_dim, body);
#if defined(LATHE_ISA_avx512_bf16)
  if (call.dtype == DType::bf16 && quantises_queries(call.head_dim)) return body(int8_t{}, Int8Dot{});
#endif
  body(int8_t{}, F32Dot{});
}

}  // namespace lathe::kernels::LATHE_ISA
