// Bound by bandwidth. The gradient's sums run as those of rms_norm's weight gradient.
#include "kernels/column_scale/bodies.h"
#include "kernels/cuda/bounds.h"
#include "kernels/cuda/element.h"
#include "kernels/cuda/elementwise.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

template <class T, bool aligned>
__global__ void __launch_bounds__(elementwise_threads) column_scale_kernel(ColumnScaleArgs a, Tiling tiling) {
  const auto [row, column, count] = elements_of_thread(tiling);
  if (count == 0) return;
  Group value = load_group<aligned>(row_of<T>(a.x, row) + column, count);
  const Group scale = load_group<aligned>(a.scale + column, count);
  LATHE_UNROLL
  for (int j = 0; j < group_elements; ++j) value.at[j] *= scale.at[j];
  if (a.bias != nullptr) {
    const Group bias = load_group<aligned>(static_cast<const T*>(a.bias) + column, count);
    LATHE_UNROLL
    for (int j = 0; j < group_elements; ++j) value.at[j] += bias.at[j];
  }
  if (a.residual.data != nullptr) {
    const Group residual = load_group<aligned>(row_of<T>(a.residual, row) + column, count);
    LATHE_UNROLL
    for (int j = 0; j < group_elements; ++j) value.at[j] += residual.at[j];
  }
  store_group<aligned>(row_of<T>(a.out, row) + column, value, count);
}

template <class T>
void scale(const ColumnScaleArgs& args) {
  const bool aligned = rows_aligned<T>(args.x) && rows_aligned<T>(args.out) && rows_aligned<T>(args.residual) &&
                       rows_aligned(args.scale, 0) && rows_aligned(static_cast<const T*>(args.bias), 0);
  launch_elementwise("column_scale", args.row_end, args.columns,
                     aligned ? column_scale_kernel<T, true> : column_scale_kernel<T, false>, args);
}

// A block for 32 columns. Warp w sums the tokens w, w + 8, w + 16, … of a sequence, counted from its start; the eight
// sums are added in order, then the sequences in order: the bits depend on the sequence alone.
constexpr int gradient_warps = 8;

// Of tokens first, first + 8, … below end. A warp's sum is one chain, and few columns make few blocks: the loads of
// sixteen tokens are under way together.
template <class T>
__device__ __forceinline__ float sum_of_tokens(const ColumnScaleGradientArgs& a, int64_t first, int64_t end,
                                               int64_t column) {
  constexpr int under_way = 16;
  float sum = 0.0f;
  for (int64_t t = first; t < end; t += under_way * gradient_warps) {
    T grad[under_way], x[under_way];
    LATHE_UNROLL
    for (int j = 0; j < under_way; ++j) {
      const int64_t token = t + j * gradient_warps;
      if (token >= end) continue;
      grad[j] = row_of<T>(a.grad_out, token)[column];
      x[j] = row_of<T>(a.x, token)[column];
    }
    LATHE_UNROLL
    for (int j = 0; j < under_way; ++j)
      if (t + j * gradient_warps < end) sum = fmaf(to_float(grad[j]), to_float(x[j]), sum);
  }
  return sum;
}

template <class T>
__global__ void __launch_bounds__(gradient_warps * 32)
    column_scale_gradient_kernel(ColumnScaleGradientArgs a, SequenceBounds bounds) {
  struct Partial {
    float sums[gradient_warps][32];
  };
  Partial& partial = block_shared<Partial>();
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t column = int64_t{blockIdx.x} * 32 + lane;
  const bool inside = column < a.column_end, first = inside && warp == 0;
  float total = first ? a.grad_scale[column] : 0.0f;
  const float factor = first ? a.factor[column] : 0.0f;
  for (int s = 0; s < bounds.count; ++s) {
    const float sum = inside ? sum_of_tokens<T>(a, bounds.at[s] + warp, bounds.at[s + 1], column) : 0.0f;
    partial.sums[warp][lane] = sum;
    __syncthreads();  // the eight sums are there
    if (warp == 0) {
      float sequence = partial.sums[0][lane];
      for (int w = 1; w < gradient_warps; ++w) sequence += partial.sums[w][lane];
      total = fmaf(factor, sequence, total);
    }
    __syncthreads();  // and have been read
  }
  if (first) a.grad_scale[column] = total;
}

template <class T>
void gradient(const ColumnScaleGradientArgs& args) {
  const LaunchConfig config{.name = "column_scale_gradient",
                            .grid = dim3(static_cast<unsigned>((args.column_end + 31) / 32)),
                            .block = dim3(gradient_warps * 32)};
  for_each_launch(args.cu_seqlens, args.sequences,
                  [&](const SequenceBounds& bounds) { launch(config, column_scale_gradient_kernel<T>, args, bounds); });
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
void column_scale_rows(const ColumnScaleArgs& args) {
  with_element(args.dtype, [&]<class T>(T) { scale<T>(args); });
}
template void column_scale_rows<DeviceKind::LATHE_CUDA_NAMESPACE>(const ColumnScaleArgs&);

template <DeviceKind>
void column_scale_gradient_columns(const ColumnScaleGradientArgs& args) {
  with_element(args.dtype, [&]<class T>(T) { gradient<T>(args); });
}
template void column_scale_gradient_columns<DeviceKind::LATHE_CUDA_NAMESPACE>(const ColumnScaleGradientArgs&);

}  // namespace lathe::kernels
