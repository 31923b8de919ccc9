// Memory that is wanted soon, asked for row by row and in its order. Included by cpu*.cpp only.
//
// A request for the second-level cache is dropped where too many are on their way already, and nothing says so. So each row is asked
// for once during each of the `chunks_ahead` chunks before its own: a Zen 4 core then reads 20 to 24 GB/s beside decode's products, with
// one request 15, with none 7. Into the first-level cache: 10. Asked for in bursts most are dropped, so requests are spread evenly.
#pragma once

#include "kernels/simd/vec.h"

namespace lathe::kernels::LATHE_ISA {

#define LATHE_IN_CLASS inline __attribute__((always_inline))

inline constexpr int chunks_ahead = 3;

struct Ahead {
  const void* const* rows[chunks_ahead] = {};  // tables of `count` rows
  int64_t next = 0, count = 0;
  int64_t row_bytes = 0;
  int64_t rows_at_once = 0;

  LATHE_IN_CLASS void ask() {
    for (int64_t i = 0; i < rows_at_once && next != count; ++i, ++next) {
      for (int64_t byte = 0; byte < row_bytes; byte += 64)
        for (int c = 0; c < chunks_ahead; ++c) __builtin_prefetch(static_cast<const char*>(rows[c][next]) + byte, 0, 2);
    }
  }
};

// Where enough is computed with each line.
struct NothingAhead {
  LATHE_IN_CLASS void ask() {}
};

}  // namespace lathe::kernels::LATHE_ISA
