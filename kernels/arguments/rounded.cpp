#include "kernels/arguments/rounded.h"

#include "kernels/checks/expect.h"

namespace lathe::kernels {

Rounded rounded_of(std::string_view operation, const Tensor& rounded, const Tensor& weight) {
  if (!rounded.defined()) return {};
  expect(operation, "rounded", rounded)
      .shape(weight.shape())
      .dtype({DType::bf16, DType::f16})
      .contiguous()
      .device(weight.device());
  return {rounded.raw(), rounded.dtype()};
}

}  // namespace lathe::kernels
