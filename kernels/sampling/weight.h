// exp(z) for z ≤ 0 by IEEE multiplications and additions alone: the same bits in every instruction set, on every
// device. For cpu.cpp (Real is Vec) and cuda.cu (Real is float). exp() of simd/vec.h fuses where the CPU can, which
// moves a draw now and then.
//
// z = n·ln 2 + r with |r| ≤ ln 2 / 2 and a polynomial of degree 7 in r; below −40, where a weight is 0, take −40.
// exp(z) = fraction · 2^exponent, 0.7 < fraction < 1.42, exact to 3 units in fraction's last place.
#pragma once

#if defined(__CUDACC__)
#define LATHE_SAMPLING_INLINE static __device__ __forceinline__
#else
#define LATHE_SAMPLING_INLINE static inline __attribute__((always_inline))
#endif

namespace lathe::kernels {

// A token's weight is fraction · 2^24 (an integer), shifted left by 16 and right by −exponent: exp(z) in units of
// 2^-40.
inline constexpr float sampling_lowest_z = -40.0f;

template <class Real>
LATHE_SAMPLING_INLINE void exponential_parts(const Real& z, Real& fraction, Real& exponent) {
  const Real shifted = z * 1.44269504088896341f + 12582912.0f;  // 1.5·2^23: adding it rounds to the nearest integer
  exponent = shifted - 12582912.0f;
  const Real r =
      (z - exponent * 0.693145751953125f) - exponent * 1.42860682030941723212e-6f;  // the first product is exact
  Real p = r * 1.98412698e-4f + 1.3888889e-3f;
  p = p * r + 8.3333333e-3f;
  p = p * r + 4.1666667e-2f;
  p = p * r + 1.6666667e-1f;
  p = p * r + 5.0e-1f;
  p = p * r + 1.0f;
  fraction = p * r + 1.0f;
}

}  // namespace lathe::kernels
