// Memory that is wanted soon, asked for row by row and in its order. Included by this folder's sources only.
//
// A request for the second-level cache is dropped where too many are on their way already, and nothing says so. So each row is asked
// for once during each of the `chunks_ahead` chunks before its own: a Zen 4 core then reads 20 to 24 GB/s beside decode's products, with
// one request 15, with none 7. Into the first-level cache: 10. Asked for in bursts most are dropped, so requests are spread evenly.
#pragma once

#include "kernels/attention/params.h"
#include "kernels/attention/cpu/row_groups.h"

namespace lathe::kernels::LATHE_ISA {

#define LATHE_IN_CLASS inline __attribute__((always_inline))

inline constexpr int chunks_ahead = 3;

class Ahead {
 public:
  Ahead() = default;  // asks for nothing
  // Rows that lie one after the other, and scales if they have any, spread over `asks`. Scales asked for all at once, into either cache,
  // came from memory after all: int8 took a tenth longer.
  Ahead(const ChunkRows* const (&chunks)[chunks_ahead], int64_t row_bytes, bool scales, int64_t asks)
      : run_bytes_(group_rows * row_bytes), runs_(scales ? 2 * row_runs : row_runs) {
    const int64_t pairs = row_runs * run_bytes_ / pair_bytes + (scales ? row_runs : 0);
    pace_ = (pairs * one + asks - 1) / asks;
    for (int c = 0; c < chunks_ahead; ++c) chunks_[c] = chunks[c];
  }

  LATHE_IN_CLASS void ask() {
    for (due_ += pace_; due_ >= one; due_ -= one) {
      if (at_[0] == end_ && !next_run()) return;
      for (int c = 0; c < chunks_ahead; ++c) {
        __builtin_prefetch(at_[c], 0, 2);
        __builtin_prefetch(at_[c] + 64, 0, 2);
        at_[c] += pair_bytes;
      }
    }
  }

 private:
  static constexpr int64_t pair_bytes = 128, one = 256, row_runs = 2 * chunk_groups;

  LATHE_IN_CLASS bool next_run() {
    if (run_ == runs_) {
      pace_ = due_ = 0;
      return false;
    }
    const bool of_rows = run_ < row_runs;
    for (int c = 0; c < chunks_ahead; ++c) {
      const RowGroups& side = run_ % row_runs < chunk_groups ? chunks_[c]->k : chunks_[c]->v;
      at_[c] = (of_rows ? side.first : side.scales)[run_ % chunk_groups];
    }
    end_ = at_[0] + (of_rows ? run_bytes_ : pair_bytes);
    ++run_;
    return true;
  }

  const char* at_[chunks_ahead] = {};
  const char* end_ = nullptr;
  int64_t pace_ = 0, due_ = 0;  // pairs of lines, in units of 1 / one
  int64_t run_bytes_ = 0, run_ = 0, runs_ = 0;
  const ChunkRows* chunks_[chunks_ahead] = {};
};

// Tokens [first, first + count) of `heads` heads brought near in the order of memory; nothing where heads do not lie side by side, as in
// a view that repeats one. What is read is loaded: the hardware's prefetcher follows loads, and prefetches in the same order gained
// nothing. What will be written another thread may be writing: prefetches.
enum class Use { read, written };
template <Use use>
LATHE_INLINE void bring_rows(const HeadRows& rows, int64_t heads, int64_t head_dim, int64_t size, int64_t first,
                             int64_t count) {
  if (heads > 1 && rows.head != head_dim) return;
  const int64_t row_bytes = heads * head_dim * size;
  Vec seen = zero();
  for (int64_t i = first; i < first + count; ++i) {
    const char* const row = static_cast<const char*>(rows.data) + i * rows.token * size;
    if constexpr (use == Use::read) {
      for (int64_t byte = 0; byte + 64 <= row_bytes; byte += 64)
        seen = (Vec)((VecI)seen | (VecI)load(reinterpret_cast<const float*>(row + byte)));
    } else {
      for (int64_t byte = 0; byte < row_bytes; byte += 64) __builtin_prefetch(row + byte, 1, 3);
    }
  }
  asm volatile("" : : "x"(seen));  // or the loads are dropped
}

// Where enough is computed with each line.
struct NothingAhead {
  LATHE_IN_CLASS void ask() {}
};

}  // namespace lathe::kernels::LATHE_ISA
