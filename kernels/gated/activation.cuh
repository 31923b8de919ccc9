// The activations of gated.h in device code: for its own kernels, and for products that end with them.
#pragma once

#include "kernels/cuda/device.h"
#include "kernels/gated/activation.h"
#include "kernels/gated/bodies.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

// What gate and up are in the formula of gated.h, and what of their gradients passes.
struct AsTheyAre {
  static __device__ __forceinline__ float gate(float x) { return x; }
  static __device__ __forceinline__ float up(float u) { return u; }
  static __device__ __forceinline__ float gate_gradient(float, float g) { return g; }
  static __device__ __forceinline__ float up_gradient(float, float g) { return g; }
};
// act(x) = x · σ(z), and act′ = σ (1 + x z′ (1 − σ)).
struct TimesLogistic : AsTheyAre {
  static __device__ __forceinline__ float factor(float x) { return x; }
  static __device__ __forceinline__ float factor_slope() { return 1.0f; }
};
// z and x · z′ of gated.h.
struct Silu : TimesLogistic {
  static __device__ __forceinline__ float z(float x) { return x; }
  static __device__ __forceinline__ float x_slope(float x) { return x; }
};
struct GeluTanh : TimesLogistic {
  // Beyond ±16 the logistic function is 0 or 1 to the last bit, and x³ would go on to infinity. NaN stays.
  static __device__ __forceinline__ float bounded(float x) { return x > 16.0f ? 16.0f : x < -16.0f ? -16.0f : x; }
  static __device__ __forceinline__ float z(float x) {
    const float b = bounded(x), scaled = 1.5957691216057308f * b;
    return fmaf(scaled * (b * b), 0.044715f, scaled);
  }
  static __device__ __forceinline__ float x_slope(float x) {
    const float b = bounded(x), scaled = 1.5957691216057308f * b;
    return fmaf(scaled * (b * b), 3 * 0.044715f, scaled);
  }
};

// NaN stays.
struct ClampedSilu : TimesLogistic {
  static constexpr auto limit = static_cast<float>(gate_limit), alpha = static_cast<float>(clamped_silu_alpha);
  static __device__ __forceinline__ float gate(float x) { return x > limit ? limit : x; }
  static __device__ __forceinline__ float up(float u) { return (u > limit ? limit : u < -limit ? -limit : u) + 1.0f; }
  static __device__ __forceinline__ float gate_gradient(float x, float g) { return x > limit ? 0.0f : g; }
  static __device__ __forceinline__ float up_gradient(float u, float g) { return fabsf(u) > limit ? 0.0f : g; }
  static __device__ __forceinline__ float z(float x) { return alpha * x; }
  static __device__ __forceinline__ float x_slope(float x) { return alpha * x; }
};

// act = σ alone.
struct Logistic : AsTheyAre {
  static __device__ __forceinline__ float factor(float) { return 1.0f; }
  static __device__ __forceinline__ float factor_slope() { return 0.0f; }
  static __device__ __forceinline__ float z(float x) { return x; }
  static __device__ __forceinline__ float x_slope(float) { return 1.0f; }
};

// act(gate) · up of two elements of T, before its rounding.
template <class T, class Gate>
__device__ __forceinline__ float gated_product(float gate, float up) {
  const float x = Gate::gate(gate), activated = Gate::factor(x) / (1.0f + expf(-Gate::z(x)));
  return to_float(from_float<T>(activated)) * Gate::up(up);
}

// Calls body.operator()<Gate>().
template <class Body>
void with_gate(GateKind kind, const Body& body) {
  switch (kind) {
    case GateKind::silu: return body.template operator()<Silu>();
    case GateKind::gelu_tanh: return body.template operator()<GeluTanh>();
    case GateKind::clamped_silu: return body.template operator()<ClampedSilu>();
  }
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
