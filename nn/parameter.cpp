#include "nn/parameter.h"

#include "kernels/copy/copy.h"

namespace lathe::nn {

Parameter Parameter::make(std::string name, Tensor master, DType dtype) {
  // cast() hands back the master itself where it has the dtype already.
  const MemoryTagScope tag(MemoryTag::adapters);
  Tensor compute = kernels::cast(master, dtype);
  return {std::move(name), std::move(master), autograd::Variable::leaf(std::move(compute))};
}

void Parameter::refresh() {
  const Tensor& compute = leaf.value();
  if (compute.dtype() != master.dtype()) kernels::copy(compute, master);
  compute.bump_version();
}

}  // namespace lathe::nn
