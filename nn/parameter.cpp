#include "nn/parameter.h"

#include "kernels/add/add.h"
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

Tensor Parameter::stored() const {
  if (stored_offset == 0) return kernels::moved(leaf.value(), {});
  const Tensor ones = Tensor::empty(master.shape(), master.dtype(), master.device());
  kernels::fill(ones, 1.0);
  const Tensor less = Tensor::empty(master.shape(), master.dtype(), master.device());
  kernels::add(less, master, ones, -stored_offset);
  return kernels::moved(kernels::cast(less, leaf.value().dtype()), {});
}

}  // namespace lathe::nn
