// Elements of any floating dtype read as double and stored with one rounding: what reference.cpp files are made of.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "core/dtype.h"

namespace lathe::kernels::reference {

// double → float by rounding to odd: the result rounds to any shorter type as the double itself would (Boldo and
// Melquiond 2008), so that bf16 and f16 are rounded once and not twice.
inline float to_float_odd(double value) {
  const float nearest = static_cast<float>(value);
  if (static_cast<double>(nearest) == value || std::isnan(value)) return nearest;
  const uint32_t bits = std::bit_cast<uint32_t>(nearest);
  if (bits & 1u) return nearest;
  // The odd neighbour on the value's side: away from zero when nearest fell short, else towards zero.
  const bool short_of = std::abs(static_cast<double>(nearest)) < std::abs(value);
  return std::bit_cast<float>(short_of ? bits + 1u : bits - 1u);
}

// The value that storing it in `dtype` leaves.
inline double round_to(DType dtype, double value) {
  switch (dtype) {
    case DType::f32: return static_cast<float>(value);
    case DType::bf16: return static_cast<float>(bf16(to_float_odd(value)));
    case DType::f16: return static_cast<float>(f16(to_float_odd(value)));
    default: return value;
  }
}

inline double read(DType dtype, const void* data, int64_t i) {
  switch (dtype) {
    case DType::f32: return static_cast<const float*>(data)[i];
    case DType::bf16: return static_cast<float>(static_cast<const bf16*>(data)[i]);
    case DType::f16: return static_cast<float>(static_cast<const f16*>(data)[i]);
    default: return static_cast<const double*>(data)[i];
  }
}

inline void write(DType dtype, void* data, int64_t i, double value) {
  switch (dtype) {
    case DType::f32: static_cast<float*>(data)[i] = static_cast<float>(value); return;
    case DType::bf16: static_cast<bf16*>(data)[i] = bf16(to_float_odd(value)); return;
    case DType::f16: static_cast<f16*>(data)[i] = f16(to_float_odd(value)); return;
    default: static_cast<double*>(data)[i] = value; return;
  }
}

}  // namespace lathe::kernels::reference
