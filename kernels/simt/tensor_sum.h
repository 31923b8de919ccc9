// How a tensor core of Hopper adds.
#pragma once

#include <cstdint>

namespace lathe::simt {

// A group of values of bf16 or f16 along k, as factors of products.
struct Factors {
  static constexpr int most = 16;
  double value[most];      // zeros after the last
  int16_t exponent[most];  // far below all others where the value is zero
  int count;
  bool finite;  // all of them
};
// least_exponent: of the type's normal numbers, −126 for bf16 and −14 for f16; its subnormals keep it.
Factors factors_of(const float* values, int count, int least_exponent);
inline constexpr int least_exponent_bf16 = -126, least_exponent_f16 = -14;

// c + Σ a[i] · b[i] as one instruction of mma.sync or wgmma gives it on sm_90: c and the exact products are aligned to
// the largest exponent among them, where a product has the sum of its factors' exponents and is not normalised; each is
// cut off toward zero 25 bits below that; they are added exactly, and the sum is cut off toward zero to f32. After the
// bit-accurate model of MMA-Sim, arXiv 2511.10909. The order of the products does not matter. Where something is
// infinite or no number, so is the sum. What a card does with subnormals, and beyond f32's range, no test on one has
// shown yet.
float add_products(float c, const Factors& a, const Factors& b);

}  // namespace lathe::simt
