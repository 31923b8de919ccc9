// Memory that is wanted soon, prefetched row by row and in its order.
//
// A prefetch into the second-level cache is dropped where too many are under way already, and nothing tells. So each
// row is prefetched once during each of the `prefetch_distance` chunks before its own: a Zen 4 core then reads 20 to 24
// GB/s beside decode's products, with one prefetch a row 15, with none 7. Into the first-level cache: 10. In bursts
// most are dropped, so prefetches are spread evenly over the work.
#pragma once

#include "kernels/attention/cpu/key_addresses.h"

namespace lathe::kernels::LATHE_ISA {

inline constexpr int prefetch_distance = 3;  // chunks

class Prefetcher {
 public:
  Prefetcher() = default;  // prefetches nothing
  // The rows of each chunk one after the other, and their scales if they have any, spread over `steps` calls of step().
  // Scales prefetched all at once, into either cache, came from memory after all: int8 took a tenth longer.
  Prefetcher(const ChunkAddresses* const (&chunks)[prefetch_distance], int64_t row_bytes, bool scales, int64_t steps)
      : run_bytes_(run_rows * row_bytes), runs_(scales ? 2 * row_runs : row_runs) {
    const int64_t pairs = row_runs * run_bytes_ / pair_bytes + (scales ? row_runs : 0);
    pace_ = (pairs * one + steps - 1) / steps;
    for (int c = 0; c < prefetch_distance; ++c) chunks_[c] = chunks[c];
  }

  [[gnu::always_inline]] void step() {
    for (due_ += pace_; due_ >= one; due_ -= one) {
      if (at_[0] == end_ && !next_run()) return;
      for (int c = 0; c < prefetch_distance; ++c) {
        __builtin_prefetch(at_[c], 0, 2);
        __builtin_prefetch(at_[c] + 64, 0, 2);
        at_[c] += pair_bytes;
      }
    }
  }

 private:
  static constexpr int64_t pair_bytes = 128, one = 256, row_runs = 2 * chunk_runs;

  [[gnu::always_inline]] bool next_run() {
    if (run_ == runs_) {
      pace_ = due_ = 0;
      return false;
    }
    const bool of_rows = run_ < row_runs;
    for (int c = 0; c < prefetch_distance; ++c) {
      const RowRuns& rows = run_ % row_runs < chunk_runs ? chunks_[c]->k : chunks_[c]->v;
      at_[c] = (of_rows ? rows.first : rows.scales)[run_ % chunk_runs];
    }
    end_ = at_[0] + (of_rows ? run_bytes_ : pair_bytes);
    ++run_;
    return true;
  }

  const char* at_[prefetch_distance] = {};
  const char* end_ = nullptr;
  int64_t pace_ = 0, due_ = 0;  // pairs of cache lines, in units of 1 / one
  int64_t run_bytes_ = 0, run_ = 0, runs_ = 0;
  const ChunkAddresses* chunks_[prefetch_distance] = {};
};

// Where enough is computed with each cache line.
struct NoPrefetch {
  [[gnu::always_inline]] void step() {}
};

// Brings the rows of `heads` heads of tokens [first, first + count) near, in the order of memory; does nothing where
// heads are not side by side, as in a view that repeats one. Rows that will be read are loaded: the hardware's
// prefetcher follows loads, and prefetches in the same order gained nothing. Rows that will be written another thread
// may be writing: they are prefetched.
enum class Access { read, write };
template <Access access>
LATHE_INLINE void prefetch_tokens(const HeadRows& rows, int64_t heads, int64_t head_dim, int64_t size, int64_t first,
                                  int64_t count) {
  if (heads > 1 && rows.head != head_dim) return;
  const int64_t row_bytes = heads * head_dim * size;
  Vec seen = zero();
  for (int64_t i = first; i < first + count; ++i) {
    const char* const row = static_cast<const char*>(rows.data) + i * rows.token * size;
    if constexpr (access == Access::read) {
      for (int64_t byte = 0; byte + 64 <= row_bytes; byte += 64)
        seen = (Vec)((VecI)seen | (VecI)load(reinterpret_cast<const float*>(row + byte)));
    } else {
      for (int64_t byte = 0; byte < row_bytes; byte += 64) __builtin_prefetch(row + byte, 1, 3);
    }
  }
  asm volatile("" : : "x"(seen));  // or the loads are dropped
}

}  // namespace lathe::kernels::LATHE_ISA
