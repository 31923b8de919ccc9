// Where a chunk's rows of keys and values lie, sixteen after sixteen: within sixteen they are evenly apart, as a page holds a multiple of
// sixteen. A table of every row's address took longer to fill and to read than all else that is done once a chunk. Included by this folder's sources
// only.
#pragma once

#include "kernels/attention/cpu/tile.h"
#include "kernels/simd/vec.h"

namespace lathe::kernels::LATHE_ISA {

inline constexpr int64_t group_rows = 16, chunk_groups = 64 / group_rows;

struct RowGroups {
  const char* first[chunk_groups];   // the first row of each sixteen
  int64_t stride;                    // bytes from one row to the next
  const char* scales[chunk_groups];  // of i8 pages: the scale of each sixteen's first row
};
// Past the keys present, the last group again.
struct ChunkRows {
  RowGroups k, v;
};

// One of the two sides of KeyRows, in bytes.
struct Side {
  const char* base;
  int64_t token, page;
};

template <class T>
LATHE_INLINE Side keys_of(const KeyRows& keys, int64_t kv_head) {
  constexpr int64_t size = sizeof(T);
  return {static_cast<const char*>(keys.k) + kv_head * keys.k_head * size, keys.k_token * size, keys.k_page * size};
}
template <class T>
LATHE_INLINE Side values_of(const KeyRows& keys, int64_t kv_head) {
  constexpr int64_t size = sizeof(T);
  return {static_cast<const char*>(keys.v) + kv_head * keys.v_head * size, keys.v_token * size, keys.v_page * size};
}

// Scales of i8 pages are rows of one number.
LATHE_INLINE Side scales_of(const KeyRows& keys, const float* scales, int64_t kv_head) {
  constexpr int64_t size = sizeof(float);
  return {reinterpret_cast<const char*>(scales + kv_head * keys.scale_head), size, keys.scale_page * size};
}

LATHE_INLINE const char* row_of(const KeyRows& keys, const Side& side, int64_t position) {
  if (keys.pages == nullptr) return side.base + position * side.token;
  const int shift = __builtin_ctzll(static_cast<unsigned long long>(keys.page_size));  // it divides a chunk of 64
  return side.base + keys.pages[position >> shift] * side.page + (position & (keys.page_size - 1)) * side.token;
}

LATHE_INLINE void find_firsts(const KeyRows& keys, const Side& side, int64_t first, int64_t count,
                              const char* (&firsts)[chunk_groups]) {
  const int64_t last = (count - 1) / group_rows;
  for (int64_t g = 0; g < chunk_groups; ++g) firsts[g] = row_of(keys, side, first + (g < last ? g : last) * group_rows);
}

// Of keys [first, first + count), where `first` starts a chunk; before make_whole().
template <class T>
LATHE_INLINE void find_groups(const KeyRows& keys, int64_t kv_head, int64_t first, int64_t count, ChunkRows& rows) {
  const Side k = keys_of<T>(keys, kv_head), v = values_of<T>(keys, kv_head);
  rows.k.stride = k.token;
  rows.v.stride = v.token;
  find_firsts(keys, k, first, count, rows.k.first);
  find_firsts(keys, v, first, count, rows.v.first);
  if constexpr (sizeof(T) == 1) {
    find_firsts(keys, scales_of(keys, keys.k_scales, kv_head), first, count, rows.k.scales);
    find_firsts(keys, scales_of(keys, keys.v_scales, kv_head), first, count, rows.v.scales);
  }
}

// Rows that are missing from a group, and groups of pages that are shorter, are completed in `copy` [64][dim]: past the end with the
// last row, so that what a mask hides is finite and nothing is read that no token was appended to.
template <class T>
LATHE_INLINE void make_whole(const KeyRows& keys, const Side& side, int64_t first, int64_t count, int64_t dim,
                             float* copy, RowGroups& rows) {
  const int64_t row_bytes = dim * static_cast<int64_t>(sizeof(T));
  const bool even = keys.pages == nullptr || keys.page_size % group_rows == 0;
  if (even && count % group_rows == 0) return;
  int64_t from = count / group_rows;  // the first group that is copied
  if (!even || rows.stride != row_bytes) from = 0;
  rows.stride = row_bytes;
  char* to = reinterpret_cast<char*>(copy);
  for (int64_t g = from; g < chunk_groups; ++g) {
    if (g * group_rows >= count) {
      rows.first[g] = rows.first[g - 1];
      continue;
    }
    rows.first[g] = to;
    for (int64_t j = 0; j < group_rows; ++j, to += row_bytes) {
      const int64_t i = g * group_rows + j;
      const char* const row = row_of(keys, side, first + (i < count ? i : count - 1));
      for (int64_t byte = 0; byte < row_bytes; byte += 16) __builtin_memcpy(to + byte, row + byte, 16);
    }
  }
}

}  // namespace lathe::kernels::LATHE_ISA
