// A thread has a group of eight columns of one token. What it reads of the tokens before (in the backward: after) its
// own comes from the caches.
#include "kernels/causal_conv/bodies.h"
#include "kernels/cuda/bounds.h"
#include "kernels/cuda/launch.h"
#include "kernels/short_conv/columns.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

template <class T, bool aligned>
using Columns = ConvColumns<T, aligned, CausalConv>;

// c of a row, whose predecessors in its sequence are all there.
template <class T, bool aligned>
__device__ __forceinline__ Group convolved(const Columns<T, aligned>& columns, int64_t row, int64_t first_row) {
  Group sum = columns.bias();
  for (int k = least(row - first_row, columns.conv.taps - 1); k >= 0; --k)
    columns.add_tap(sum, k, columns.of(columns.conv.x, row - k));
  return sum;
}

template <class T, bool aligned>
__device__ __forceinline__ void store_silu(const CausalConvForwardArgs& a, const Columns<T, aligned>& columns,
                                           int64_t row, Group c) {
  LATHE_UNROLL
  for (int i = 0; i < group_elements; ++i) c.at[i] = c.at[i] / (1.0f + expf(-c.at[i]));
  store_group<aligned>(row_of<T>(a.out, row) + columns.column, c, columns.count);
}

// Of what has grad_out, the gradient of c.
__device__ __forceinline__ float of_convolved(float grad_out, float c) {
  const float e = expf(-c), s = 1.0f / (1.0f + e);
  const float rest = c > 0.0f ? e * s : 1.0f - s;  // 1 − s, which cancels where s is near 1
  return grad_out * (s * fmaf(c, rest, 1.0f));
}

// Whole sequences.
template <class T, bool aligned>
__global__ void __launch_bounds__(elementwise_threads)
    causal_conv_forward_kernel(CausalConvForwardArgs a, Tiling tiling, SequenceBounds bounds) {
  const auto [within, column, count] = elements_of_thread(tiling);
  if (count == 0) return;
  const int64_t row = bounds.at[0] + within;
  const Columns<T, aligned> columns{a, column, count};
  store_silu(a, columns, row, convolved(columns, row, bounds.at[sequence_of(bounds.at, bounds.count, row)]));
}

// What a thread of a step knows of its sequence.
struct StepSequence {
  int64_t begin, end, earlier;  // rows, and the tokens before them
};

// c of a row, some of whose predecessors may be in the state.
template <class T, bool aligned>
__device__ __forceinline__ Group convolved_after(const T* state, const CausalConvForwardArgs& a,
                                                 const Columns<T, aligned>& columns, const StepSequence& sequence,
                                                 int64_t row) {
  const int64_t in_step = row - sequence.begin;
  Group sum = columns.bias();
  for (int k = least(sequence.earlier + in_step, a.taps - 1); k >= 0; --k) {
    const T* const x =
        k <= in_step ? row_of<T>(a.x, row - k) + columns.column : state + (a.taps - 1 + in_step - k) * a.states.row;
    columns.add_tap(sum, k, load_group<aligned>(x, columns.count));
  }
  return sum;
}

// The sequence's last rows take the place of those that the state had, which lie behind.
template <class T, bool aligned>
__device__ __forceinline__ void keep(T* state, const CausalConvForwardArgs& a, const Columns<T, aligned>& columns,
                                     const StepSequence& sequence) {
  const int last = a.taps - 1;
  for (int j = 0; j < last; ++j) {
    const int64_t row = sequence.end - last + j, in_step = row - sequence.begin;
    Group x = {};
    if (in_step >= 0) {
      x = columns.of(a.x, row);
    } else if (in_step + sequence.earlier >= 0) {
      x = load_group<aligned>(state + (last + in_step) * a.states.row, columns.count);
    }
    store_group<aligned>(state + j * a.states.row, x, columns.count);
  }
}

// A step. One thread has all rows that read the state, and then changes it: others would have to wait for each other.
template <class T, bool aligned>
__global__ void __launch_bounds__(elementwise_threads) causal_conv_step_kernel(CausalConvForwardArgs a, Tiling tiling) {
  const auto [row, column, count] = elements_of_thread(tiling);
  if (count == 0) return;
  const int s = sequence_of(a.cu_seqlens, static_cast<int>(a.sequences), row), last = a.taps - 1;
  StepSequence sequence{a.cu_seqlens[s], a.cu_seqlens[s + 1], 0};
  sequence.earlier = a.states.contexts[s] - (sequence.end - sequence.begin);
  const int64_t in_step = row - sequence.begin;
  if (in_step > 0 && in_step < last) return;
  const Columns<T, aligned> columns{a, column, count};
  T* const state = static_cast<T*>(a.states.data) + a.states.slots[s] * a.states.slot + column;
  int64_t end = in_step == 0 ? row + last : row + 1;
  if (end > sequence.end) end = sequence.end;
  int64_t next = row;
  do {
    store_silu(a, columns, next, convolved_after(state, a, columns, sequence, next));
  } while (++next < end);
  if (in_step == 0) keep(state, a, columns, sequence);
}

template <class T, bool aligned>
__global__ void __launch_bounds__(elementwise_threads)
    causal_conv_backward_kernel(CausalConvBackwardArgs a, Tiling tiling, SequenceBounds bounds) {
  const auto [within, column, count] = elements_of_thread(tiling);
  if (count == 0) return;
  const int64_t row = bounds.at[0] + within;
  const int sequence = sequence_of(bounds.at, bounds.count, row);
  const Columns<T, aligned> columns{a, column, count};
  Group of_x = {};
  const int after = least(bounds.at[sequence + 1] - 1 - row, a.taps - 1);
  for (int k = 0; k <= after; ++k) {
    Group gradient = columns.of(a.grad_out, row + k);
    const Group c = convolved(columns, row + k, bounds.at[sequence]);
    LATHE_UNROLL
    for (int i = 0; i < group_elements; ++i) gradient.at[i] = of_convolved(gradient.at[i], c.at[i]);
    columns.add_tap(of_x, k, gradient);
  }
  store_group<aligned>(row_of<T>(a.grad_x, row) + column, of_x, count);
}

// All taps of a column and its bias at once: they share c.
template <class T>
__global__ void __launch_bounds__(weight_warps * 32)
    causal_conv_weight_gradient_kernel(CausalConvBackwardArgs a, SequenceBounds bounds) {
  WeightSums& room = block_shared<WeightSums>();
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, last = a.taps - 1;
  const int64_t column = int64_t{blockIdx.x} * weight_columns + lane;
  const bool inside = column < a.column_end;
  float weight[most_conv_taps], bias = 0.0f;  // weight[k]: of the token that is k before
  LATHE_UNROLL
  for (int k = 0; k < most_conv_taps; ++k)
    weight[k] = inside && k <= last ? to_float(static_cast<const T*>(a.weight)[column * a.taps + last - k]) : 0.0f;
  if (inside && a.bias != nullptr) bias = to_float(static_cast<const T*>(a.bias)[column]);
  for (int s = 0; s < bounds.count; ++s) {
    float sums[most_conv_taps] = {}, bias_sum = 0.0f;
    for (int64_t row = bounds.at[s] + warp; inside && row < bounds.at[s + 1]; row += weight_warps) {
      const int before = least(row - bounds.at[s], last);
      float x[most_conv_taps], c = bias;
      LATHE_UNROLL
      for (int k = most_conv_taps - 1; k >= 0; --k) {
        x[k] = 0.0f;
        if (k > before) continue;
        x[k] = to_float(row_of<T>(a.x, row - k)[column]);
        c = fmaf(weight[k], x[k], c);
      }
      const float gradient = of_convolved(to_float(row_of<T>(a.grad_out, row)[column]), c);
      LATHE_UNROLL
      for (int k = 0; k < most_conv_taps; ++k)
        if (k <= before) sums[k] = fmaf(gradient, x[k], sums[k]);
      bias_sum += gradient;
    }
    LATHE_UNROLL
    for (int k = 0; k < most_conv_taps; ++k) {
      if (a.grad_weight == nullptr || k > last) continue;
      const float sum = sum_of_warps(room, sums[k]);
      if (inside && warp == 0) a.grad_weight[column * a.taps + last - k] += sum;
    }
    if (a.grad_bias == nullptr) continue;
    const float sum = sum_of_warps(room, bias_sum);
    if (inside && warp == 0) a.grad_bias[column] += sum;
  }
}

template <class T>
void forward(const CausalConvForwardArgs& a) {
  const bool whole = rows_aligned<T>(a.x) && rows_aligned<T>(a.out);
  for_each_launch(a.cu_seqlens, a.sequences, [&](const SequenceBounds& bounds) {
    launch_elementwise("causal_conv_forward", bounds.at[bounds.count] - bounds.at[0], a.columns,
                       whole ? causal_conv_forward_kernel<T, true> : causal_conv_forward_kernel<T, false>, a, bounds);
  });
}

template <class T>
void step(const CausalConvForwardArgs& a) {
  const T* const states = static_cast<const T*>(a.states.data);
  const bool whole = rows_aligned<T>(a.x) && rows_aligned<T>(a.out) && rows_aligned(states, a.states.slot) &&
                     rows_aligned(states, a.states.row);
  launch_elementwise("causal_conv_step", a.rows, a.columns,
                     whole ? causal_conv_step_kernel<T, true> : causal_conv_step_kernel<T, false>, a);
}

template <class T>
void backward(const CausalConvBackwardArgs& a) {
  const bool whole = rows_aligned<T>(a.x) && rows_aligned<T>(a.grad_x) && rows_aligned<T>(a.grad_out);
  for_each_launch(a.cu_seqlens, a.sequences, [&](const SequenceBounds& bounds) {
    launch_elementwise("causal_conv_backward", bounds.at[bounds.count] - bounds.at[0], a.columns,
                       whole ? causal_conv_backward_kernel<T, true> : causal_conv_backward_kernel<T, false>, a, bounds);
  });
  if (a.grad_weight == nullptr && a.grad_bias == nullptr) return;
  const LaunchConfig config{.name = "causal_conv_weight_gradient",
                            .grid = dim3(static_cast<unsigned>((a.columns + weight_columns - 1) / weight_columns)),
                            .block = dim3(weight_warps * 32)};
  for_each_launch(a.cu_seqlens, a.sequences, [&](const SequenceBounds& bounds) {
    launch(config, causal_conv_weight_gradient_kernel<T>, a, bounds);
  });
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
void causal_conv_forward_columns(const CausalConvForwardArgs& args) {
  with_element(args.dtype, [&]<class T>(T) { args.states.contexts != nullptr ? step<T>(args) : forward<T>(args); });
}
template void causal_conv_forward_columns<DeviceKind::LATHE_CUDA_NAMESPACE>(const CausalConvForwardArgs&);

template <DeviceKind>
void causal_conv_backward_columns(const CausalConvBackwardArgs& args) {
  with_element(args.dtype, [&]<class T>(T) { backward<T>(args); });
}
template void causal_conv_backward_columns<DeviceKind::LATHE_CUDA_NAMESPACE>(const CausalConvBackwardArgs&);

}  // namespace lathe::kernels
