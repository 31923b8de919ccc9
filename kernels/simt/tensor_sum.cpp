#include "kernels/simt/tensor_sum.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

namespace lathe::simt {
namespace {

constexpr int fraction_bits = 25;
constexpr int zero_exponent = -10000;

struct Parts {
  int32_t significand;  // in units of 2^(exponent − 23)
  int32_t exponent;
};

Parts parts_of(float value, int least_exponent) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const int stored = static_cast<int>(bits >> 23 & 0xff);
  const auto fraction = static_cast<int32_t>(bits & 0x7fffff);
  const int32_t size = stored == 0 ? fraction : fraction | 0x800000;
  if (size == 0) return {0, zero_exponent};
  const int exponent = std::max(stored, 1) - 127, below = std::clamp(least_exponent - exponent, 0, 31);
  return {(bits >> 31 ? -size : size) / static_cast<int32_t>(int64_t{1} << std::min(below, 30)), exponent + below};
}

// value · 2^−shift, cut off toward zero.
int32_t cut_off(int32_t value, int shift) {
  const int32_t kept = std::abs(value) >> std::min(shift, 31);
  return value < 0 ? -kept : kept;
}

// sum · 2^scale, cut off toward zero to f32.
float cut_off_to_f32(int64_t sum, int scale) {
  const int64_t size = std::abs(sum);
  const int surplus = std::max(static_cast<int>(std::bit_width(static_cast<uint64_t>(size))) - 24, -149 - scale);
  const int64_t kept = surplus <= 0 ? size : surplus < 63 ? size >> surplus : 0;
  const double value = std::ldexp(static_cast<double>(kept), scale + std::max(surplus, 0));
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
  for (int i = 0; i < count; ++i) {
    const Parts parts = parts_of(values[i], least_exponent);
    factors.significand[i] = parts.significand / (1 << 13);  // exact: the types have eleven bits at most
    factors.exponent[i] = parts.exponent;
    factors.value[i] = values[i];
    factors.finite = factors.finite && std::isfinite(values[i]);
  }
  return factors;
}

float add_products(float c, const Factors& a, const Factors& b) {
  if (!a.finite || !b.finite || !std::isfinite(c)) {
    float sum = c;
    for (int i = 0; i < a.count; ++i) sum += a.value[i] * b.value[i];
    return sum;
  }
  const Parts start = parts_of(c, least_exponent_bf16);
  int largest = start.exponent;
  for (int i = 0; i < a.count; ++i) largest = std::max(largest, a.exponent[i] + b.exponent[i]);
  int64_t sum = cut_off(start.significand * (1 << (fraction_bits - 23)), largest - start.exponent);
  for (int i = 0; i < a.count; ++i)
    sum += cut_off(a.significand[i] * b.significand[i] * (1 << (fraction_bits - 20)),
                   largest - a.exponent[i] - b.exponent[i]);
  return sum == 0 ? 0.0f : cut_off_to_f32(sum, largest - fraction_bits);
}

}  // namespace lathe::simt
