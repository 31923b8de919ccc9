// A row's sums are those of kernels/cuda/row.h. Bound by bandwidth: x is read twice, the second time from the cache.
#include "kernels/cuda/bounds.h"
#include "kernels/cuda/element.h"
#include "kernels/cuda/ptx/grid_dependency.h"
#include "kernels/cuda/row.h"
#include "kernels/rms_norm/bodies.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

template <class T, bool aligned, int warps_of_row>
__global__ void __launch_bounds__(RowThreads<warps_of_row>::threads) rms_norm_forward_kernel(RmsNormForwardArgs a) {
  using R = RowThreads<warps_of_row>;
  RowSum<warps_of_row> row_sum;
  const int64_t row = R::row();
  begin_dependent();
  if (row >= a.row_end) return;  // all of a row's warps leave
  const T* x = row_of<T>(a.x, row);
  float squares = 0.0f;
  for (int64_t i = R::first_column(); i < a.columns; i += R::step) {
    const int count = group_size(a.columns, i);
    Group group = load_group<aligned>(x + i, count);
    if (a.residual.data != nullptr) {
      const Group residual = load_group<aligned>(row_of<T>(a.residual, row) + i, count);
      LATHE_UNROLL
      for (int j = 0; j < group_elements; ++j) group.at[j] = to_float(from_float<T>(group.at[j] + residual.at[j]));
      store_group<aligned>(row_of<T>(a.sum, row) + i, group, count);
    }
    LATHE_UNROLL
    for (int j = 0; j < group_elements; ++j) squares = fmaf(group.at[j], group.at[j], squares);
  }
  const float r = 1.0f / sqrtf(row_sum(squares) / static_cast<float>(a.columns) + a.eps);
  if (R::first_column() == 0 && a.rstd != nullptr) a.rstd[row] = r;

  const T* normed = a.residual.data != nullptr ? row_of<T>(a.sum, row) : x;  // each thread reads what it wrote
  for (int64_t i = R::first_column(); i < a.columns; i += R::step) {
    const int count = group_size(a.columns, i);
    Group group = load_group<aligned>(normed + i, count);
    const Group weight = load_group<aligned>(static_cast<const T*>(a.weight) + i, count);
    LATHE_UNROLL
    for (int j = 0; j < group_elements; ++j) group.at[j] = to_float(from_float<T>(group.at[j] * r)) * weight.at[j];
    store_group<aligned>(row_of<T>(a.out, row) + i, group, count);
  }
}

template <class T, bool aligned>
void launch_forward(const RmsNormForwardArgs& args) {
  launch_rows<Launch::dependent>("rms_norm_forward", rms_norm_forward_kernel<T, aligned, 1>,
                                 rms_norm_forward_kernel<T, aligned, warps_of_long_row>, args);
}

template <class T>
void forward(const RmsNormForwardArgs& args) {
  const bool aligned = rows_aligned<T>(args.x) && rows_aligned<T>(args.out) && rows_aligned<T>(args.residual) &&
                       rows_aligned<T>(args.sum) && rows_aligned(static_cast<const T*>(args.weight), 0);
  aligned ? launch_forward<T, true>(args) : launch_forward<T, false>(args);
}

template <class T, bool aligned, int warps_of_row>
__global__ void __launch_bounds__(RowThreads<warps_of_row>::threads) rms_norm_backward_kernel(RmsNormBackwardArgs a) {
  using R = RowThreads<warps_of_row>;
  RowSum<warps_of_row> row_sum;
  const int64_t row = R::row();
  if (row >= a.row_end) return;
  const float r = a.rstd[row];
  float products = 0.0f;
  for (int64_t i = R::first_column(); i < a.columns; i += R::step) {
    const int count = group_size(a.columns, i);
    const Group x = load_group<aligned>(row_of<T>(a.x, row) + i, count);
    const Group grad = load_group<aligned>(row_of<T>(a.grad_out, row) + i, count);
    const Group weight = load_group<aligned>(static_cast<const T*>(a.weight) + i, count);
    LATHE_UNROLL
    for (int j = 0; j < group_elements; ++j) products = fmaf(grad.at[j] * weight.at[j], x.at[j] * r, products);
  }
  const float mean = row_sum(products) / static_cast<float>(a.columns);
  for (int64_t i = R::first_column(); i < a.columns; i += R::step) {
    const int count = group_size(a.columns, i);
    const Group x = load_group<aligned>(row_of<T>(a.x, row) + i, count);
    const Group grad = load_group<aligned>(row_of<T>(a.grad_out, row) + i, count);
    const Group weight = load_group<aligned>(static_cast<const T*>(a.weight) + i, count);
    Group through = {};
    if (a.grad_sum.data != nullptr) through = load_group<aligned>(row_of<T>(a.grad_sum, row) + i, count);
    Group result;
    LATHE_UNROLL
    for (int j = 0; j < group_elements; ++j)
      result.at[j] = fmaf(r, fmaf(-(x.at[j] * r), mean, grad.at[j] * weight.at[j]), through.at[j]);
    store_group<aligned>(row_of<T>(a.grad_x, row) + i, result, count);
  }
}

// A block for 32 columns. Warp w sums the tokens w, w + 8, w + 16, … of a sequence, counted from its start; the eight
// sums are added in order, then the sequences in order: the bits depend on the sequence alone.
constexpr int weight_warps = 8;
constexpr int tokens_under_way = 16;  // of a warp: few columns make few blocks, and a warp's sum is one chain

template <class T>
__global__ void __launch_bounds__(weight_warps * 32)
    rms_norm_weight_gradient_kernel(RmsNormWeightGradArgs a, SequenceBounds bounds) {
  struct Partial {
    float sums[weight_warps][32];
  };
  Partial& partial = block_shared<Partial>();
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t column = int64_t{blockIdx.x} * 32 + lane;
  const bool inside = column < a.column_end;
  float total = inside && warp == 0 ? a.grad_weight[column] : 0.0f;
  for (int s = 0; s < bounds.count; ++s) {
    float sum = 0.0f;
    if (inside) {
      int64_t t = bounds.at[s] + warp;
      constexpr int64_t step = int64_t{tokens_under_way} * weight_warps;
      for (; t + step - weight_warps < bounds.at[s + 1]; t += step) {
        T x[tokens_under_way], grad[tokens_under_way];
        float rstd[tokens_under_way];
        LATHE_UNROLL
        for (int j = 0; j < tokens_under_way; ++j) {
          const int64_t token = t + j * weight_warps;
          x[j] = row_of<T>(a.x, token)[column];
          grad[j] = row_of<T>(a.grad_out, token)[column];
          rstd[j] = a.rstd[token];
        }
        LATHE_UNROLL
        for (int j = 0; j < tokens_under_way; ++j) sum = fmaf(to_float(grad[j]), to_float(x[j]) * rstd[j], sum);
      }
      for (; t < bounds.at[s + 1]; t += weight_warps)
        sum = fmaf(to_float(row_of<T>(a.grad_out, t)[column]), to_float(row_of<T>(a.x, t)[column]) * a.rstd[t], sum);
    }
    partial.sums[warp][lane] = sum;
    __syncthreads();  // the eight sums are there
    if (warp == 0) {
      float sequence = partial.sums[0][lane];
      for (int w = 1; w < weight_warps; ++w) sequence += partial.sums[w][lane];
      total += sequence;
    }
    __syncthreads();  // and have been read
  }
  if (inside && warp == 0) a.grad_weight[column] = total;
}

template <class T>
void weight_gradient(const RmsNormWeightGradArgs& args) {
  const LaunchConfig config{.name = "rms_norm_weight_gradient",
                            .grid = dim3(static_cast<unsigned>((args.column_end + 31) / 32)),
                            .block = dim3(weight_warps * 32)};
  for_each_launch(args.cu_seqlens, args.sequences, [&](const SequenceBounds& bounds) {
    launch(config, rms_norm_weight_gradient_kernel<T>, args, bounds);
  });
}

template <class T, bool aligned>
void launch_backward(const RmsNormBackwardArgs& args) {
  launch_rows("rms_norm_backward", rms_norm_backward_kernel<T, aligned, 1>,
              rms_norm_backward_kernel<T, aligned, warps_of_long_row>, args);
}

template <class T>
void backward(const RmsNormBackwardArgs& args) {
  const bool aligned = rows_aligned<T>(args.x) && rows_aligned<T>(args.grad_x) && rows_aligned<T>(args.grad_out) &&
                       rows_aligned<T>(args.grad_sum) && rows_aligned(static_cast<const T*>(args.weight), 0);
  aligned ? launch_backward<T, true>(args) : launch_backward<T, false>(args);
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
void rms_norm_forward_rows(const RmsNormForwardArgs& args) {
  with_element(args.dtype, [&]<class T>(T) { forward<T>(args); });
}
template void rms_norm_forward_rows<DeviceKind::LATHE_CUDA_NAMESPACE>(const RmsNormForwardArgs&);

template <DeviceKind>
void rms_norm_backward_rows(const RmsNormBackwardArgs& args) {
  with_element(args.dtype, [&]<class T>(T) { backward<T>(args); });
}
template void rms_norm_backward_rows<DeviceKind::LATHE_CUDA_NAMESPACE>(const RmsNormBackwardArgs&);

template <DeviceKind>
void rms_norm_weight_grad_columns(const RmsNormWeightGradArgs& args) {
  with_element(args.dtype, [&]<class T>(T) { weight_gradient<T>(args); });
}
template void rms_norm_weight_grad_columns<DeviceKind::LATHE_CUDA_NAMESPACE>(const RmsNormWeightGradArgs&);

}  // namespace lathe::kernels
