// What a body is told of a [tokens, heads, D] tensor whose last dimension is contiguous. Plain data, the same for CPU
// and CUDA bodies.
#pragma once

#include <cstdint>

namespace lathe {
class Tensor;
}

namespace lathe::kernels {

struct HeadRows {
  void* data;
  int64_t token, head;  // strides in elements
};

HeadRows head_rows_of(const Tensor& tensor);

}  // namespace lathe::kernels
