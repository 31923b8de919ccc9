// From a dtype to the type that kernels are instantiated for.
#pragma once

#include "core/dtype.h"
#include "kernels/cuda/device.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

// Calls body(T{}) with the element of f32, bf16 or f16.
template <class Body>
void with_element(DType dtype, Body body) {
  switch (dtype) {
    case DType::bf16: return body(bf16_t{});
    case DType::f16: return body(f16_t{});
    default: return body(float{});
  }
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
