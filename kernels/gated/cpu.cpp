#include "kernels/gated/bodies.h"

#include "kernels/simd/element.h"
#include "kernels/simd/row.h"

namespace lathe::kernels::LATHE_ISA {
namespace {

// What gate and up are in the formula of gated.h, and what of their gradients passes.
struct AsTheyAre {
  static LATHE_INLINE Vec gate(Vec x) { return x; }
  static LATHE_INLINE Vec up(Vec u) { return u; }
  static LATHE_INLINE Vec gate_gradient(Vec, Vec g) { return g; }
  static LATHE_INLINE Vec up_gradient(Vec, Vec g) { return g; }
};
// act(x) = x · σ(z), and act′ = σ (1 + x z′ (1 − σ)).
struct TimesLogistic : AsTheyAre {
  static LATHE_INLINE Vec factor(Vec x) { return x; }
  static LATHE_INLINE Vec factor_slope() { return splat(1.0f); }
};
// z and x · z′ of gated.h.
struct Silu : TimesLogistic {
  static LATHE_INLINE Vec z(Vec x) { return x; }
  static LATHE_INLINE Vec x_slope(Vec x) { return x; }
};
struct GeluTanh : TimesLogistic {
  // Beyond ±16 the logistic function is 0 or 1 to the last bit, and x³ would go on to infinity. NaN stays.
  static LATHE_INLINE Vec bounded(Vec x) { return min(splat(16.0f), max(splat(-16.0f), x)); }
  static LATHE_INLINE Vec z(Vec x) {
    const Vec b = bounded(x), scaled = splat(1.5957691216057308f) * b;
    return fma(scaled * (b * b), splat(0.044715f), scaled);
  }
  static LATHE_INLINE Vec x_slope(Vec x) {
    const Vec b = bounded(x), scaled = splat(1.5957691216057308f) * b;
    return fma(scaled * (b * b), splat(3 * 0.044715f), scaled);
  }
};
// NaN stays.
struct ClampedSilu : TimesLogistic {
  static constexpr auto limit = static_cast<float>(gate_limit), alpha = static_cast<float>(clamped_silu_alpha);
  static LATHE_INLINE Vec gate(Vec x) { return min(splat(limit), x); }
  static LATHE_INLINE Vec up(Vec u) { return min(splat(limit), max(splat(-limit), u)) + splat(1.0f); }
  static LATHE_INLINE Vec gate_gradient(Vec x, Vec g) { return select((VecI)(x > splat(limit)), zero(), g); }
  static LATHE_INLINE Vec up_gradient(Vec u, Vec g) { return select((VecI)(max(u, -u) > splat(limit)), zero(), g); }
  static LATHE_INLINE Vec z(Vec x) { return splat(alpha) * x; }
  static LATHE_INLINE Vec x_slope(Vec x) { return splat(alpha) * x; }
};

// act = σ alone.
struct Logistic : AsTheyAre {
  static LATHE_INLINE Vec factor(Vec) { return splat(1.0f); }
  static LATHE_INLINE Vec factor_slope() { return zero(); }
  static LATHE_INLINE Vec z(Vec x) { return x; }
  static LATHE_INLINE Vec x_slope(Vec) { return splat(1.0f); }
};

template <class T, class Gate>
void forward_row(const GatedForwardArgs& args, int64_t row) {
  const T* gate = row_of<T>(args.gate, row);
  const T* up = row_of<T>(args.up, row);
  T* out = row_of<T>(args.out, row);
  for_row(args.columns, [&](int64_t i, int count) {
    const Vec x = Gate::gate(load_some(gate + i, count));
    const Vec activated = round_to<T>(Gate::factor(x) / (splat(1.0f) + exp(-Gate::z(x))));
    store_some(out + i, activated * Gate::up(load_some(up + i, count)), count);
  });
}

template <class T, class Gate>
void backward_row(const GatedBackwardArgs& args, int64_t row) {
  const T* grad_out = row_of<T>(args.grad_out, row);
  const T* gate = row_of<T>(args.gate, row);
  const T* up = row_of<T>(args.up, row);
  T* grad_gate = row_of<T>(args.grad_gate, row);
  T* grad_up = row_of<T>(args.grad_up, row);
  const Vec one = splat(1.0f);
  for_row(args.columns, [&](int64_t i, int count) {
    const Vec given_x = load_some(gate + i, count), given_u = load_some(up + i, count);
    const Vec x = Gate::gate(given_x), u = Gate::up(given_u), g = load_some(grad_out + i, count);
    const Vec e = exp(-Gate::z(x)), s = one / (one + e);
    // 1 − s, which would cancel where s is near 1: there it is computed as e · s.
    const Vec rest = select((VecI)(x > zero()), e * s, one - s);
    const Vec slope = s * fma(Gate::x_slope(x), rest, Gate::factor_slope());
    store_some(grad_gate + i, Gate::gate_gradient(given_x, g * u * slope), count);
    store_some(grad_up + i, Gate::up_gradient(given_u, g * (Gate::factor(x) * s)), count);
  });
}

// Calls rows.operator()<T, Gate>().
template <class Args, class Rows>
LATHE_INLINE void choose(const Args& args, Rows rows) {
  with_element(args.dtype, [&]<class T>(T) {
    switch (args.kind) {
      case GatedKind::silu: return rows.template operator()<T, Silu>();
      case GatedKind::gelu_tanh: return rows.template operator()<T, GeluTanh>();
      case GatedKind::clamped_silu: return rows.template operator()<T, ClampedSilu>();
      case GatedKind::logistic: return rows.template operator()<T, Logistic>();
    }
  });
}

}  // namespace
}  // namespace lathe::kernels::LATHE_ISA

namespace lathe::kernels {

template <Isa>
void gated_forward_rows(GatedForwardArgs args) {
  choose(args, [&]<class T, class Gate>() {
    for (int64_t row = args.row_begin; row < args.row_end; ++row) forward_row<T, Gate>(args, row);
  });
}
template void gated_forward_rows<Isa::LATHE_ISA>(GatedForwardArgs);

template <Isa>
void gated_backward_rows(GatedBackwardArgs args) {
  choose(args, [&]<class T, class Gate>() {
    for (int64_t row = args.row_begin; row < args.row_end; ++row) backward_row<T, Gate>(args, row);
  });
}
template void gated_backward_rows<Isa::LATHE_ISA>(GatedBackwardArgs);

}  // namespace lathe::kernels
