// The addresses of a chunk's rows of keys and values: a base and a stride for every run of sixteen, within which rows
// are evenly apart, as a page holds a multiple of sixteen. A table of every row's address took longer to fill and to
// read than all else that is done once a chunk.
#pragma once

#include "kernels/attention/cpu/arguments.h"
#include "kernels/simd/vec.h"

namespace lathe::kernels::LATHE_ISA {

inline constexpr int64_t run_rows = 16, chunk_runs = attention_chunk / run_rows;

// Past the keys present, the last run again.
struct RowRuns {
  const char* first[chunk_runs];   // each run's first row
  int64_t stride;                  // bytes from one row to the next
  const char* scales[chunk_runs];  // of i8 pages: the scale of each run's first row
};
struct ChunkAddresses {
  RowRuns k, v;
};

// Rows of one kv head, strides in bytes.
struct HeadAddresses {
  const char* base;
  int64_t token, page;
};

template <class T>
LATHE_INLINE HeadAddresses head_addresses(const KeyRows& rows, int64_t kv_head) {
  constexpr int64_t size = sizeof(T);
  return {static_cast<const char*>(rows.data) + kv_head * rows.head * size, rows.token * size, rows.page * size};
}

// Scales of i8 pages are rows of one number.
LATHE_INLINE HeadAddresses scale_addresses(const KeysAndValues& keys, const float* scales, int64_t kv_head) {
  constexpr int64_t size = sizeof(float);
  return {reinterpret_cast<const char*>(scales + kv_head * keys.scale_head), size, keys.scale_page * size};
}

LATHE_INLINE const char* row_address(const KeysAndValues& keys, const HeadAddresses& head, int64_t position) {
  if (keys.pages == nullptr) return head.base + position * head.token;
  const int shift = __builtin_ctzll(static_cast<unsigned long long>(keys.page_size));  // it divides a chunk of 64
  return head.base + keys.pages[position >> shift] * head.page + (position & (keys.page_size - 1)) * head.token;
}

LATHE_INLINE void find_runs(const KeysAndValues& keys, const HeadAddresses& head, int64_t first, int64_t count,
                            const char* (&runs)[chunk_runs]) {
  const int64_t last = (count - 1) / run_rows;
  for (int64_t i = 0; i < chunk_runs; ++i) runs[i] = row_address(keys, head, first + (i < last ? i : last) * run_rows);
}

// Of keys [first, first + count), where `first` starts a chunk; before complete_runs().
template <class T>
LATHE_INLINE void find_addresses(const KeysAndValues& keys, int64_t kv_head, int64_t first, int64_t count,
                                 ChunkAddresses& rows) {
  const HeadAddresses k = head_addresses<T>(keys.k, kv_head), v = head_addresses<T>(keys.v, kv_head);
  rows.k.stride = k.token;
  rows.v.stride = v.token;
  find_runs(keys, k, first, count, rows.k.first);
  find_runs(keys, v, first, count, rows.v.first);
  if constexpr (sizeof(T) == 1) {
    find_runs(keys, scale_addresses(keys, keys.k.scales, kv_head), first, count, rows.k.scales);
    find_runs(keys, scale_addresses(keys, keys.v.scales, kv_head), first, count, rows.v.scales);
  }
}

// Copies to `copy` [64][dim] the runs that lack rows, and those of pages shorter than a run. Past the end the last row
// is repeated, so that what a mask hides is finite and nothing is read that no token was appended to.
template <class T>
LATHE_INLINE void complete_runs(const KeysAndValues& keys, const HeadAddresses& head, int64_t first, int64_t count,
                                int64_t dim, float* copy, RowRuns& rows) {
  const int64_t row_bytes = dim * static_cast<int64_t>(sizeof(T));
  const bool even = keys.pages == nullptr || keys.page_size % run_rows == 0;
  if (even && count % run_rows == 0) return;
  int64_t from = count / run_rows;  // the first run that is copied
  if (!even || rows.stride != row_bytes) from = 0;
  rows.stride = row_bytes;
  char* to = reinterpret_cast<char*>(copy);
  for (int64_t run = from; run < chunk_runs; ++run) {
    if (run * run_rows >= count) {
      rows.first[run] = rows.first[run - 1];
      continue;
    }
    rows.first[run] = to;
    for (int64_t j = 0; j < run_rows; ++j, to += row_bytes) {
      const int64_t i = run * run_rows + j;
      const char* const row = row_address(keys, head, first + (i < count ? i : count - 1));
      for (int64_t byte = 0; byte < row_bytes; byte += 16) __builtin_memcpy(to + byte, row + byte, 16);
    }
  }
}

}  // namespace lathe::kernels::LATHE_ISA
