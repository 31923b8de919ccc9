// The heads of a Mamba-2 mixer (mamba2.h).
#pragma once

#include <cstdint>

namespace lathe::kernels {

inline constexpr int64_t most_mamba2_dim = 256;

struct Mamba2Heads {
  int64_t heads, groups;         // H, a multiple of G: head h reads B and C of group h / (H / G)
  int64_t head_dim, state_size;  // P and N, multiples of 8 up to most_mamba2_dim

  int64_t xbc_columns() const { return heads * head_dim + 2 * groups * state_size; }
  int64_t out_columns() const { return heads * head_dim; }
};

}  // namespace lathe::kernels
