// What the CPU bodies of attention and paged attention get, how much scratch they take, and their declarations. Plain
// data, the same for the bodies of every instruction set.
#pragma once

#include <cstdint>

#include "core/dtype.h"
#include "kernels/attention/params.h"
#include "kernels/simd/isa.h"

namespace lathe::kernels {

// Keys or values, packed or in pages; strides in elements.
struct KeyRows {
  const void* data;
  int64_t token, head, page;
  const float* scales;  // of i8 pages: one for each row
};

// A sequence's keys and values. Position j of kv head h is at
//   without pages: data + j·token + h·head
//   with pages:    data + pages[j / page_size]·page + (j % page_size)·token + h·head
// and the scale of an i8 row at scales + pages[j / page_size]·scale_page + h·scale_head + j % page_size.
struct KeysAndValues {
  KeyRows k, v;
  const int32_t* pages;  // null: without pages
  int64_t page_size;
  int64_t scale_page, scale_head;
};

// Floats in every row of scratch are padded to a multiple of this: the widest vector.
inline constexpr int64_t row_padding = 16;
constexpr int64_t padded_head_dim(int64_t head_dim) { return (head_dim + row_padding - 1) / row_padding * row_padding; }

// Whether bf16 is multiplied in pairs. CPUs with AMX take four times as long for a pair as for a product of f32:
// without, forward and backward are 1.5 times as fast.
constexpr bool multiplies_pairs(Isa isa) { return isa == Isa::avx512_bf16; }

// Up to so many rows a tile uses its keys and values faster than memory brings them: those of the next chunks are
// prefetched, and both are read in place.
inline constexpr int64_t attention_few_rows = 24;

// The forward is cut into tiles: some tokens of a sequence × the query heads of one kv head. Rows are token-major.
struct AttentionTileArgs {
  // What all tiles of a call share.
  struct Call {
    HeadRows q, out;
    float* lse;  // [heads][T], lse_head apart; null: not wanted
    int64_t lse_head;
    int64_t head_dim, padded_dim;  // padded_dim: padded_head_dim(head_dim)
    int64_t kv_heads, group;       // group: query heads of a kv head
    AttentionParams params;
    DType dtype;     // of q and out: f32 | bf16 | f16
    DType kv_dtype;  // the same, or of pages: f32 | bf16 | f16 | i8
    bool pairs;      // multiplies_pairs(active_isa())
  };
  // The results of chunks that are computed apart: of chunk c and row r the maximum and the sum at [c·rows + r], the
  // output at [(c·rows + r)·padded_dim].
  struct Partials {
    float* maximum;
    float* sum;
    float* out;
  };

  const Call* call;
  KeysAndValues keys;  // of the tile's sequence
  int64_t first_token, tokens;
  int64_t first_position;  // of the first token, in its sequence
  int64_t kv_head;
  int64_t chunk_begin, chunk_end;
  Partials partials;  // of attention_tile_chunks and attention_tile_merge
  float* scratch;     // attention_tile_scratch_floats
  // The tile that this thread computes next, or null. Its first keys are prefetched during the last chunks of this one.
  const AttentionTileArgs* next;
};

constexpr int64_t few_rows_scratch_floats(int64_t rows, int64_t padded_dim) {
  return rows * (3 * padded_dim + row_padding + 2) + 4 * row_padding  // q, out, maximum, sum
         + 2 * 64 * padded_dim                                        // the chunk's keys transposed, its values padded
         + 8 * (64 + padded_dim + 2 * row_padding)                    // a block's probabilities and results
         + 16 * 64                                                    // row pointers
         + 2 * 64;                                                    // scales of the chunk's rows
}
constexpr int64_t many_rows_scratch_floats(int64_t rows, int64_t padded_dim) {
  const int64_t whole = (rows + 63) / 64 * 64;
  return whole * (2 * padded_dim + 2) + 2 * row_padding  // q, out, maximum, sum
         + 2 * 64 * padded_dim                           // the chunk's keys and values
         + 2 * 64 * 64                                   // a block's scores and probabilities
         + 4 * 64                                        // row pointers
         + 6 * 64;                                       // scales of the chunk's rows, a block's sums and factors
}
constexpr int64_t attention_tile_scratch_floats(int64_t rows, int64_t padded_dim) {
  const int64_t few = few_rows_scratch_floats(rows, padded_dim), many = many_rows_scratch_floats(rows, padded_dim);
  return few > many ? few : many;
}

// The backward is cut by sequences and kv heads, and further where there are too few of those.
struct AttentionGradientArgs {
  // What all parts of a call share.
  struct Call {
    HeadRows grad_q, grad_k, grad_v, grad_out, q, k, v, out;
    const float* lse;  // [heads][T], lse_head apart
    int64_t lse_head;
    float* dots;  // [heads][tokens]: rowsum(grad_out ∘ out), filled on the way
    int64_t tokens, heads;
    int64_t head_dim, padded_dim, kv_heads, group;
    AttentionParams params;
    DType dtype;  // f32 | bf16 | f16
    bool pairs;   // multiplies_pairs(active_isa())
  };

  const Call* call;
  int64_t start, length;  // the sequence's tokens
  int64_t kv_head;
  int64_t begin, end;  // key gradients: chunks of 64 keys; query gradients: tiles of 64 tokens
  float* scratch;      // attention_gradient_scratch_floats
};

constexpr int64_t attention_gradient_scratch_floats(int64_t length, int64_t padded_dim) {
  const int64_t padded_length = (length + 63) / 64 * 64;
  return 4 * 64                             // row pointers, lse, dots
         + 5 * 64 * padded_dim              // a tile's queries and gradients
         + 4 * 64 * 64                      // products, probabilities, score gradients
         + 5 * padded_length * padded_dim;  // the sequence's keys, values and their gradients
}

// Chunks [chunk_begin, chunk_end) one after another, merged in order, and the result written.
template <Isa>
void attention_tile(const AttentionTileArgs& args);
// The same chunks, their results left in partials …
template <Isa>
void attention_tile_chunks(const AttentionTileArgs& args);
// … and all of a tile's partials merged in order by the same arithmetic, and the result written.
template <Isa>
void attention_tile_merge(const AttentionTileArgs& args);

// All gradients of one sequence and kv head in one pass …
template <Isa>
void attention_gradients(const AttentionGradientArgs& args);
// … or, where there are too few of those for the threads, apart, which computes the scores twice and gives the same
// bits: the dots, then grad_k and grad_v of the chunks [begin, end) and grad_q of the tiles [begin, end).
template <Isa>
void attention_row_dots(const AttentionGradientArgs& args);
template <Isa>
void attention_key_gradients(const AttentionGradientArgs& args);
template <Isa>
void attention_query_gradients(const AttentionGradientArgs& args);

}  // namespace lathe::kernels
