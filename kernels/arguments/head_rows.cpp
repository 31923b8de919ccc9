#include "kernels/arguments/head_rows.h"

#include "core/tensor.h"

namespace lathe::kernels {

HeadRows head_rows_of(const Tensor& tensor) { return {tensor.raw(), tensor.stride(0), tensor.stride(1)}; }

}  // namespace lathe::kernels
