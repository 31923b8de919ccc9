// What attention_forward and paged_attention have in common: the work is cut into tiles of query rows, a tile's keys
// are found through KeyRows, and one CPU body does the rest. Plain data, read by the bodies of every instruction set.
#pragma once

#include <cstdint>

#include "core/dtype.h"
#include "kernels/simd/dispatch.h"

namespace lathe::kernels {

// Where the keys and values of a sequence's position j lie, for one kv head h; strides in elements.
//   without pages: k + j·k_token + h·k_head
//   with pages:    k + pages[j / page_size]·k_page + (j % page_size)·k_token + h·k_head
struct KeyRows {
  const void* k;
  const void* v;
  int64_t k_token, k_head, k_page;
  int64_t v_token, v_head, v_page;
  int64_t page_size;
  const int32_t* pages;  // null: without pages
  // i8 pages only: one scale a row, at pages[j / page_size]·scale_page + h·scale_head + j % page_size.
  const float *k_scales, *v_scales;
  int64_t scale_page, scale_head;
};

// What all tiles of one call share. Rows of a tile are its tokens × the query heads of one kv head, token-major.
struct TileCall {
  const void* q;
  void* out;
  float* lse;  // may be null
  int64_t q_token, q_head, out_token, out_head, lse_head;
  int64_t head_dim, padded_dim;  // padded_dim: head_dim rounded up to tile_padding
  int64_t kv_heads, group;       // query heads for each kv head
  int64_t window;
  float scale, softcap;
  DType dtype;     // of q and out: f32 | bf16 | f16
  DType kv_dtype;  // the same, or of pages: f32 | bf16 | f16 | i8
};

// Floats in every row of scratch are padded to this: the widest vector.
inline constexpr int64_t tile_padding = 16;
constexpr int64_t padded_head_dim(int64_t head_dim) {
  return (head_dim + tile_padding - 1) / tile_padding * tile_padding;
}

// The chunk results of a tile whose chunks are computed apart: for chunk c and row r, maximum and sum at [c·rows + r],
// the output at [(c·rows + r)·padded_dim].
struct TilePartials {
  float* maximum;
  float* sum;
  float* out;
};

// Up to so many rows a tile uses its keys and values faster than memory brings them: those of the next chunks are asked for early, and both
// are read where they lie.
inline constexpr int64_t rows_that_wait = 24;

struct TileTask {
  const TileCall* call;
  KeyRows keys;
  int64_t first_token;  // of the tile, in q
  int64_t tokens;
  int64_t first_position;  // of the first token, in its sequence
  int64_t kv_head;
  int64_t chunk_begin, chunk_end;
  TilePartials partials;  // used by the two bodies below the first
  float* scratch;         // tile_scratch_floats
  const TileTask* after;  // what this thread does next, or null: its first keys are asked for during the last of these
};

constexpr int64_t few_rows_scratch_floats(int64_t rows, int64_t padded_dim) {
  return rows * (3 * padded_dim + tile_padding + 2) + 4 * tile_padding  // q, out, maximum, sum
         + 2 * 64 * padded_dim                       // the chunk's keys transposed, its values padded
         + 8 * (64 + padded_dim + 2 * tile_padding)  // a block's probabilities and results
         + 16 * 64                                   // row pointers
         + 2 * 64;                                   // scales of the chunk's rows
}
constexpr int64_t many_rows_scratch_floats(int64_t rows, int64_t padded_dim) {
  const int64_t whole = (rows + 63) / 64 * 64;
  return whole * (2 * padded_dim + 2) + 2 * tile_padding  // q, out, maximum, sum
         + 2 * 64 * padded_dim                            // the chunk's keys and values
         + 2 * 64 * 64                                    // a block's scores and probabilities
         + 4 * 64                                         // row pointers
         + 6 * 64;                                        // scales of the chunk's rows, a block's sums and factors
}
constexpr int64_t tile_scratch_floats(int64_t rows, int64_t padded_dim) {
  const int64_t few = few_rows_scratch_floats(rows, padded_dim), many = many_rows_scratch_floats(rows, padded_dim);
  return few > many ? few : many;
}

}  // namespace lathe::kernels

// Chunks [chunk_begin, chunk_end) one after another, merged in order, and the result written.
LATHE_CPU_BODY(attention_tile, const TileTask&)
// The same chunks, their results left in partials …
LATHE_CPU_BODY(attention_tile_chunks, const TileTask&)
// … and all of a tile's partials merged in order by the same arithmetic, and the result written.
LATHE_CPU_BODY(attention_tile_merge, const TileTask&)
