// Bound by bandwidth. The gradient's sums are those of kernels/cuda/row.h.
#include "kernels/cuda/element.h"
#include "kernels/cuda/elementwise.h"
#include "kernels/row_gate/bodies.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

template <class T, bool aligned>
__global__ void __launch_bounds__(elementwise_threads) row_gate_forward_kernel(RowGateForwardArgs a, Tiling tiling) {
  const auto [row, column, count] = elements_of_thread(tiling);
  if (count == 0) return;
  const float s = 1.0f / (1.0f + expf(-to_float(*row_of<T>(a.gate, row))));
  const Group x = load_group<aligned>(row_of<T>(a.x, row) + column, count);
  Group out = load_group<aligned>(row_of<T>(a.residual, row) + column, count);
  LATHE_UNROLL
  for (int j = 0; j < group_elements; ++j) out.at[j] = fmaf(s, x.at[j], out.at[j]);
  store_group<aligned>(row_of<T>(a.out, row) + column, out, count);
}

template <class T, bool aligned, int warps_of_row>
__global__ void __launch_bounds__(RowThreads<warps_of_row>::threads) row_gate_backward_kernel(RowGateBackwardArgs a) {
  using R = RowThreads<warps_of_row>;
  RowSum<warps_of_row> row_sum;
  const int64_t row = R::row();
  if (row >= a.row_end) return;  // all of a row's warps leave
  const float gate = to_float(*row_of<T>(a.gate, row)), e = expf(-gate), s = 1.0f / (1.0f + e);
  const float rest = gate > 0.0f ? e * s : 1.0f - s;  // 1 − s, which cancels where s is near 1
  float sum = 0.0f;
  for (int64_t i = R::first_column(); i < a.columns; i += R::step) {
    const int count = group_size(a.columns, i);
    const Group x = load_group<aligned>(row_of<T>(a.x, row) + i, count);
    Group gradient = load_group<aligned>(row_of<T>(a.grad_out, row) + i, count);
    LATHE_UNROLL
    for (int j = 0; j < group_elements; ++j) {
      sum = fmaf(gradient.at[j], x.at[j], sum);
      gradient.at[j] *= s;
    }
    store_group<aligned>(row_of<T>(a.grad_x, row) + i, gradient, count);
  }
  sum = row_sum(sum);
  if (R::first_column() == 0) *row_of<T>(a.grad_gate, row) = from_float<T>(s * rest * sum);
}

template <class T>
void forward(const RowGateForwardArgs& a) {
  const bool aligned = rows_aligned<T>(a.out) && rows_aligned<T>(a.x) && rows_aligned<T>(a.residual);
  launch_elementwise("row_gate_forward", a.row_end, a.columns,
                     aligned ? row_gate_forward_kernel<T, true> : row_gate_forward_kernel<T, false>, a);
}

template <class T, bool aligned>
void launch_backward(const RowGateBackwardArgs& a) {
  launch_rows("row_gate_backward", row_gate_backward_kernel<T, aligned, 1>,
              row_gate_backward_kernel<T, aligned, warps_of_long_row>, a);
}

template <class T>
void backward(const RowGateBackwardArgs& a) {
  const bool aligned = rows_aligned<T>(a.grad_x) && rows_aligned<T>(a.grad_out) && rows_aligned<T>(a.x);
  aligned ? launch_backward<T, true>(a) : launch_backward<T, false>(a);
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
void row_gate_forward_rows(const RowGateForwardArgs& args) {
  with_element(args.dtype, [&]<class T>(T) { forward<T>(args); });
}
template void row_gate_forward_rows<DeviceKind::LATHE_CUDA_NAMESPACE>(const RowGateForwardArgs&);

template <DeviceKind>
void row_gate_backward_rows(const RowGateBackwardArgs& args) {
  with_element(args.dtype, [&]<class T>(T) { backward<T>(args); });
}
template void row_gate_backward_rows<DeviceKind::LATHE_CUDA_NAMESPACE>(const RowGateBackwardArgs&);

}  // namespace lathe::kernels
