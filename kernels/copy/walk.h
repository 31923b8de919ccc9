// Two tensors of one shape as rows: plain data, for host and device code.
#pragma once

#include <cstdint>

namespace lathe::kernels {

// Rows of `run` elements, their elements a step apart. Dimensions that follow each other in both tensors are folded
// into one.
struct Walk {
  static constexpr int max_rank = 6;
  int rank = 0;  // of the dimensions outside the run
  int64_t extent[max_rank] = {}, out_stride[max_rank] = {}, in_stride[max_rank] = {};  // extent[0] is the fastest
  int64_t run = 1, out_step = 1, in_step = 1;
  int64_t rows = 1;  // the product of the extents
};

}  // namespace lathe::kernels
