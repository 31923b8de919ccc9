// Checks that attention and paged attention share; each throws ShapeError.
#pragma once

#include <string_view>

#include "core/tensor.h"
#include "kernels/attention/attention.h"

namespace lathe::kernels {

// x [tokens, heads, head_dim] of the dtype and the device, its last dimension contiguous.
void expect_heads(std::string_view operation, std::string_view argument, const Tensor& x, const Shape& shape,
                  DType dtype, Device device);
// heads is a multiple of kv_heads, neither is 0.
void expect_groups(std::string_view operation, int64_t heads, int64_t kv_heads);
void expect_params(std::string_view operation, const AttentionParams& params);

}  // namespace lathe::kernels
