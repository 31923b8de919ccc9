#include "kernels/simt/tensor_sum.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

namespace lathe::simt {
namespace {

constexpr int fraction_bits = 25;
constexpr int zero_exponent = -10000, least_of_any = -1000;

// That of zero is below every sum of two others.
int exponent_of(float value, int least_exponent) {
  const int stored = static_cast<int>(std::bit_cast<uint32_t>(value) >> 23 & 0xff);
  return value == 0.0f ? zero_exponent : std::max({stored - 127, -126, least_exponent});
}

// Of a double's normal numbers.
double power_of_two(int exponent) { return std::bit_cast<double>(static_cast<uint64_t>(exponent + 1023) << 52); }

// sum · 2^scale, cut off toward zero to f32.
float cut_off_to_f32(int64_t sum, int scale) {
  const int64_t size = std::abs(sum);
  const int surplus = std::max(static_cast<int>(std::bit_width(static_cast<uint64_t>(size))) - 24, -149 - scale);
  const int64_t kept = surplus <= 0 ? size : surplus < 63 ? size >> surplus : 0;
  const double value = static_cast<double>(kept) * power_of_two(scale + std::max(surplus, 0));
  const float result = value > static_cast<double>(std::numeric_limits<float>::max())
                           ? std::numeric_limits<float>::infinity()
                           : static_cast<float>(value);
  return sum < 0 ? -result : result;
}

}  // namespace

Factors factors_of(const float* values, int count, int least_exponent) {
  Factors factors;
  factors.count = count;
  factors.finite = true;
  for (int i = 0; i < Factors::most; ++i) {
    const float value = i < count ? values[i] : 0.0f;
    factors.value[i] = static_cast<double>(value);
    factors.exponent[i] = static_cast<int16_t>(exponent_of(value, least_exponent));
    factors.finite = factors.finite && std::isfinite(value);
  }
  return factors;
}

// Conversions to whole numbers cut off toward zero, and doubles hold a product and its multiples by powers of two
// exactly, so that a product takes two multiplications and a conversion, two products side by side.
float add_products(float c, const Factors& a, const Factors& b) {
  if (!a.finite || !b.finite || !std::isfinite(c)) {
    float sum = c;
    for (int i = 0; i < a.count; ++i) sum += static_cast<float>(a.value[i]) * static_cast<float>(b.value[i]);
    return sum;
  }
  auto largest = static_cast<int16_t>(exponent_of(c, least_exponent_bf16));
  for (int i = 0; i < Factors::most; ++i)
    largest = std::max(largest, static_cast<int16_t>(a.exponent[i] + b.exponent[i]));
  if (largest < least_of_any) return 0.0f;  // nothing but zeros
  const double scale = power_of_two(fraction_bits - largest);
  int32_t sum = 0;  // each product is below 2^27
  for (int i = 0; i < Factors::most; ++i) sum += static_cast<int32_t>(a.value[i] * b.value[i] * scale);
  const int64_t total = int64_t{sum} + static_cast<int32_t>(static_cast<double>(c) * scale);
  return total == 0 ? 0.0f : cut_off_to_f32(total, largest - fraction_bits);
}

}  // namespace lathe::simt
