#include "kernels/arguments/matrix.h"

#include "core/tensor.h"

namespace lathe::kernels {

Matrix matrix_of(const Tensor& tensor) {
  if (!tensor.defined()) return {};
  return {tensor.raw(), tensor.stride(0)};
}

}  // namespace lathe::kernels
