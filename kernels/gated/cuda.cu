// Bound by bandwidth: a thread reads groups of eight elements of each operand and writes the results; forward two, as
// its instructions are near to a bound, too.
#include "kernels/cuda/element.h"
#include "kernels/cuda/half_rows.h"
#include "kernels/gated/activation.cuh"
#include "kernels/gated/bodies.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

template <class T, class Gate, bool aligned>
__global__ void __launch_bounds__(elementwise_threads) gated_forward_kernel(GatedForwardArgs a, Tiling tiling) {
  const HalfRows own = half_rows_of_thread(tiling, a.columns);
  if (own.count[0] == 0) return;
  Group gate[2], up[2];
  LATHE_UNROLL
  for (int h = 0; h < 2; ++h) {
    if (own.count[h] == 0) continue;
    gate[h] = load_group<aligned>(row_of<T>(a.gate, own.row) + own.column[h], own.count[h]);
    up[h] = load_group<aligned>(row_of<T>(a.up, own.row) + own.column[h], own.count[h]);
  }
  LATHE_UNROLL
  for (int h = 0; h < 2; ++h) {
    if (own.count[h] == 0) return;
    Group out;
    LATHE_UNROLL
    for (int j = 0; j < group_elements; ++j) out.at[j] = gated_product<T, Gate>(gate[h].at[j], up[h].at[j]);
    store_group<aligned>(row_of<T>(a.out, own.row) + own.column[h], out, own.count[h]);
  }
}

template <class T, class Gate, bool aligned>
__global__ void __launch_bounds__(elementwise_threads) gated_backward_kernel(GatedBackwardArgs a, Tiling tiling) {
  const auto [row, column, count] = elements_of_thread(tiling);
  if (count == 0) return;
  const Group grad_out = load_group<aligned>(row_of<T>(a.grad_out, row) + column, count);
  const Group gate = load_group<aligned>(row_of<T>(a.gate, row) + column, count);
  const Group up = load_group<aligned>(row_of<T>(a.up, row) + column, count);
  Group grad_gate, grad_up;
  LATHE_UNROLL
  for (int j = 0; j < group_elements; ++j) {
    const float x = Gate::gate(gate.at[j]), u = Gate::up(up.at[j]), g = grad_out.at[j];
    const float e = expf(-Gate::z(x)), s = 1.0f / (1.0f + e);
    const float rest = x > 0.0f ? e * s : 1.0f - s;  // 1 − s, which cancels where s is near 1
    const float slope = s * fmaf(Gate::x_slope(x), rest, Gate::factor_slope());
    grad_gate.at[j] = Gate::gate_gradient(gate.at[j], g * u * slope);
    grad_up.at[j] = Gate::up_gradient(up.at[j], g * (Gate::factor(x) * s));
  }
  store_group<aligned>(row_of<T>(a.grad_gate, row) + column, grad_gate, count);
  store_group<aligned>(row_of<T>(a.grad_up, row) + column, grad_up, count);
}

template <class T, class Gate>
void forward(const GatedForwardArgs& a) {
  const bool aligned = rows_aligned<T>(a.out) && rows_aligned<T>(a.gate) && rows_aligned<T>(a.up);
  launch_elementwise("gated_forward", a.row_end, half_columns(a.columns),
                     aligned ? gated_forward_kernel<T, Gate, true> : gated_forward_kernel<T, Gate, false>, a);
}

template <class T, class Gate>
void backward(const GatedBackwardArgs& a) {
  const bool aligned = rows_aligned<T>(a.grad_gate) && rows_aligned<T>(a.grad_up) && rows_aligned<T>(a.grad_out) &&
                       rows_aligned<T>(a.gate) && rows_aligned<T>(a.up);
  launch_elementwise("gated_backward", a.row_end, a.columns,
                     aligned ? gated_backward_kernel<T, Gate, true> : gated_backward_kernel<T, Gate, false>, a);
}

// Calls kernels.operator()<T, Gate>().
template <class Args, class Kernels>
void choose(const Args& args, const Kernels& kernels) {
  with_element(args.dtype, [&]<class T>(T) {
    switch (args.kind) {
      case GatedKind::silu: return kernels.template operator()<T, Silu>();
      case GatedKind::gelu_tanh: return kernels.template operator()<T, GeluTanh>();
      case GatedKind::clamped_silu: return kernels.template operator()<T, ClampedSilu>();
      case GatedKind::logistic: return kernels.template operator()<T, Logistic>();
    }
  });
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
void gated_forward_rows(const GatedForwardArgs& args) {
  choose(args, [&]<class T, class Gate>() { forward<T, Gate>(args); });
}
template void gated_forward_rows<DeviceKind::LATHE_CUDA_NAMESPACE>(const GatedForwardArgs&);

template <DeviceKind>
void gated_backward_rows(const GatedBackwardArgs& args) {
  choose(args, [&]<class T, class Gate>() { backward<T, Gate>(args); });
}
template void gated_backward_rows<DeviceKind::LATHE_CUDA_NAMESPACE>(const GatedBackwardArgs&);

}  // namespace lathe::kernels
