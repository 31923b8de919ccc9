// Products of rows in f64, in blocks of eight that a compiler puts into vectors of any width: the bits follow from the
// length alone.
#pragma once

#include <array>
#include <cstddef>

namespace lathe::nn {

// Eight sums side by side, added in order at the end.
inline double dot(const double* a, const double* b, size_t length) {
  std::array<double, 8> sums{};
  const size_t whole = length / 8 * 8;
  for (size_t i = 0; i < whole; i += 8)
    for (size_t j = 0; j < 8; ++j) sums[j] += a[i + j] * b[i + j];
  for (size_t i = whole; i < length; ++i) sums[0] += a[i] * b[i];
  double sum = 0;
  for (const double part : sums) sum += part;
  return sum;
}

// to += factor · row; they do not overlap.
inline void add_scaled(double* to, double factor, const double* row, size_t length) {
  const size_t whole = length / 8 * 8;
  for (size_t i = 0; i < whole; i += 8) {
    std::array<double, 8> sums;
    for (size_t j = 0; j < 8; ++j) sums[j] = to[i + j] + factor * row[i + j];
    for (size_t j = 0; j < 8; ++j) to[i + j] = sums[j];
  }
  for (size_t i = whole; i < length; ++i) to[i] += factor * row[i];
}

}  // namespace lathe::nn
