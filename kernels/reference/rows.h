// Elements of tensors whose rows are contiguous, for references that go through them one by one.
#pragma once

#include "core/tensor.h"
#include "kernels/reference/element.h"

namespace lathe::kernels::reference {

inline double at(const Tensor& t, int64_t row, int64_t column) {
  return read(t.dtype(), t.raw(), row * t.stride(0) + column);
}
inline double at(const Tensor& t, int64_t i) { return read(t.dtype(), t.raw(), i); }
inline void put(const Tensor& t, int64_t row, int64_t column, double value) {
  write(t.dtype(), t.raw(), row * t.stride(0) + column, value);
}
inline void add(const Tensor& t, int64_t i, double value) { write(t.dtype(), t.raw(), i, at(t, i) + value); }

}  // namespace lathe::kernels::reference
