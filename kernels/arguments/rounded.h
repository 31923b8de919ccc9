// What an optimiser rounds the weights of a tensor into, which are f32: the leaf that a forward reads.
#pragma once

#include <string_view>

#include "core/dtype.h"

namespace lathe {
class Tensor;
}

namespace lathe::kernels {

struct Rounded {
  void* data = nullptr;  // none
  DType dtype = DType::bf16;
};

// None of an undefined tensor. Throws ShapeError for one that is not contiguous bf16 | f16 of the weight's shape and
// device.
Rounded rounded_of(std::string_view operation, const Tensor& rounded, const Tensor& weight);

}  // namespace lathe::kernels
