#include "kernels/attention/checks.h"

#include <string>

#include "core/error.h"
#include "kernels/checks/expect.h"

namespace lathe::kernels {

void expect_heads(std::string_view operation, std::string_view argument, const Tensor& x, const Shape& shape,
                  DType dtype, Device device) {
  expect(operation, argument, x).shape(shape).dtype(dtype).rows_contiguous().device(device);
}

void expect_groups(std::string_view operation, int64_t heads, int64_t kv_heads) {
  if (kv_heads > 0 && heads > 0 && heads % kv_heads == 0) return;
  throw ShapeError(std::string(operation) + ": expected query heads that are a multiple of the kv heads, found " +
                   std::to_string(heads) + " heads and " + std::to_string(kv_heads) + " kv heads");
}

void expect_params(std::string_view operation, const AttentionParams& params) {
  if (params.window >= 0 && params.softcap >= 0 && params.scale > 0) return;  // a NaN fails too
  throw ShapeError(std::string(operation) +
                   ": expected scale > 0, window ≥ 0 and softcap ≥ 0 (0 switches the last two off), found scale " +
                   std::to_string(params.scale) + ", window " + std::to_string(params.window) + " and softcap " +
                   std::to_string(params.softcap));
}

}  // namespace lathe::kernels
