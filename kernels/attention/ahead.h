// Memory that is wanted soon, asked for row by row and in its order. Included by cpu*.cpp only.
//
// A loop over one page after another that asks for each line 8 to 16 KiB early, into the second-level cache, reads 20 to 24 GB/s on a
// Zen 4 core whatever else it computes; into the first-level cache, or in bursts between which nothing is asked for, 9 to 12, which is
// what the hardware's prefetcher gives: a page ends before it has found its stride.
#pragma once

#include "kernels/simd/vec.h"

namespace lathe::kernels::LATHE_ISA {

#define LATHE_IN_CLASS inline __attribute__((always_inline))

struct Ahead {
  const void* const* row = nullptr;  // the next, of those up to end
  const void* const* end = nullptr;
  int64_t row_bytes = 0;
  int64_t rows_at_once = 0;

  LATHE_IN_CLASS void ask() {
    for (int64_t i = 0; i < rows_at_once && row != end; ++i, ++row) {
      const char* const first = static_cast<const char*>(*row);
      for (int64_t byte = 0; byte < row_bytes; byte += 64) __builtin_prefetch(first + byte, 0, 2);
    }
  }
};

// Where enough is computed with each line.
struct NothingAhead {
  LATHE_IN_CLASS void ask() {}
};

}  // namespace lathe::kernels::LATHE_ISA
