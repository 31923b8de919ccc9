// The heads of a gated delta rule (gated_delta.h).
#pragma once

#include <cstdint>

namespace lathe::kernels {

inline constexpr int64_t most_gated_delta_dim = 256;

struct GatedDeltaHeads {
  int64_t key_heads, value_heads;  // Hk and Hv, a multiple of Hk
  int64_t key_dim, value_dim;      // Dk and Dv, multiples of 8 up to most_gated_delta_dim

  int64_t qkv_columns() const { return 2 * key_heads * key_dim + value_heads * value_dim; }
  int64_t out_columns() const { return value_heads * value_dim; }
};

}  // namespace lathe::kernels
