#include "kernels/matmul/operands.h"

namespace lathe::kernels {

ProductMatrix product_matrix(const Tensor& tensor) {
  if (!tensor.defined()) return {};
  return {tensor.raw(), tensor.rank() == 2 ? tensor.stride(0) : 0, tensor.dtype()};
}

ProductMatrix product_matrix(const Weight& weight) {
  if (const PackedWeight* packed = weight.packed()) return product_matrix(packed->dense());
  return product_matrix(*weight.dense());
}

}  // namespace lathe::kernels
