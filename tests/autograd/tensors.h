// Seeded tensors and exact comparisons for the autograd tests.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "autograd/sequence_layout.h"
#include "autograd/variable.h"
#include "core/random.h"
#include "kernels/copy/copy.h"

namespace lathe::autograd::testing {

// Normal numbers times `scale`, rounded to the dtype.
inline Tensor random_tensor(RandomStream& random, const Shape& shape, DType dtype, double scale = 1.0) {
  Tensor exact = Tensor::empty(shape, DType::f64);
  for (double& value : exact.span<double>()) value = scale * static_cast<double>(random.normal());
  if (dtype == DType::f64) return exact;
  Tensor rounded = Tensor::empty(shape, dtype);
  kernels::copy(rounded, exact);
  return rounded;
}

inline Tensor integers(RandomStream& random, int64_t count, int32_t below) {
  std::vector<int32_t> values(static_cast<size_t>(count));
  for (int32_t& value : values) value = static_cast<int32_t>(random.below(static_cast<uint64_t>(below)));
  return Tensor::of(std::span<const int32_t>(values), Shape{count});
}

inline SequenceLayout layout_of(std::vector<int32_t> lengths, int32_t first_sample = 0) {
  return SequenceLayout::of(lengths, first_sample);
}

// The bytes of a contiguous tensor.
inline std::vector<unsigned char> bytes_of(const Tensor& tensor) {
  const auto* begin = static_cast<const unsigned char*>(tensor.raw());
  return {begin, begin + tensor.nbytes()};
}

inline bool same_bits(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && a.dtype() == b.dtype() && bytes_of(a) == bytes_of(b);
}

inline bool any_nonzero(const Tensor& tensor) {
  for (const unsigned char byte : bytes_of(tensor)) {
    if (byte != 0) return true;
  }
  return false;
}

}  // namespace lathe::autograd::testing
