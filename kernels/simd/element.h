// From a dtype to the type that a body is instantiated for. For cpu*.cpp only.
#pragma once

#include "core/dtype.h"
#include "kernels/simd/inline.h"

namespace lathe::kernels::LATHE_ISA {

// Calls body(T{}) with the element of f32, bf16 or f16, whose type is what matters.
template <class Body>
LATHE_INLINE void with_element(DType dtype, Body body) {
  switch (dtype) {
    case DType::bf16: return body(bf16{});
    case DType::f16: return body(f16{});
    default: return body(float{});
  }
}

}  // namespace lathe::kernels::LATHE_ISA
