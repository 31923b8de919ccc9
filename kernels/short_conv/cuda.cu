// Bound by bandwidth: a thread has a group of eight columns of one token. What it reads of the tokens before (in the
// backward: after) its own comes from the caches.
#include "kernels/cuda/bounds.h"
#include "kernels/cuda/launch.h"
#include "kernels/short_conv/bodies.h"
#include "kernels/short_conv/columns.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

// Eight columns of rows of B, C and x.
template <class T, bool aligned>
struct Columns : ConvColumns<T, aligned, ShortConv> {
  __device__ __forceinline__ Columns(const ShortConv& conv, int64_t column, int count)
      : ConvColumns<T, aligned, ShortConv>{conv, column, count} {}
  __device__ __forceinline__ Group load(int64_t row, int64_t part) const {
    return load_group<aligned>(row_of<T>(this->conv.bcx, row) + part * this->conv.columns + this->column, this->count);
  }
  __device__ __forceinline__ Group b(int64_t row) const { return load(row, 0); }
  __device__ __forceinline__ Group c(int64_t row) const { return load(row, 1); }
  __device__ __forceinline__ Group x(int64_t row) const { return load(row, 2); }
  __device__ __forceinline__ Group product(int64_t row) const {
    Group result = b(row);
    const Group other = x(row);
    LATHE_UNROLL
    for (int i = 0; i < group_elements; ++i) result.at[i] = to_float(from_float<T>(result.at[i] * other.at[i]));
    return result;
  }
};

template <class T, bool aligned>
__device__ __forceinline__ void store_gated(const ShortConvForwardArgs& a, const Columns<T, aligned>& columns,
                                            int64_t row, const Group& convolved) {
  Group out = columns.c(row);
  LATHE_UNROLL
  for (int i = 0; i < group_elements; ++i) out.at[i] *= to_float(from_float<T>(convolved.at[i]));
  store_group<aligned>(row_of<T>(a.out, row) + columns.column, out, columns.count);
}

// Whole sequences.
template <class T, bool aligned>
__global__ void __launch_bounds__(elementwise_threads)
    short_conv_forward_kernel(ShortConvForwardArgs a, Tiling tiling, SequenceBounds bounds) {
  const auto [within, column, count] = elements_of_thread(tiling);
  if (count == 0) return;
  const int64_t row = bounds.at[0] + within;
  const Columns<T, aligned> columns{a, column, count};
  Group sum = columns.bias();
  const int before = least(row - bounds.at[sequence_of(bounds.at, bounds.count, row)], a.taps - 1);
  for (int k = before; k >= 0; --k) columns.add_tap(sum, k, columns.product(row - k));
  store_gated(a, columns, row, sum);
}

// A step over pages. Tokens of the step are not read there: others write them meanwhile.
template <class T, bool aligned>
__global__ void __launch_bounds__(elementwise_threads) short_conv_paged_kernel(ShortConvForwardArgs a, Tiling tiling) {
  const auto [row, column, count] = elements_of_thread(tiling);
  if (count == 0) return;
  const PagedSteps& steps = a.steps;
  const int sequence = sequence_of(steps.bounds, static_cast<int>(steps.sequences), row);
  const int64_t in_batch = row - steps.bounds[sequence];
  const int64_t position = steps.contexts[sequence] - (steps.bounds[sequence + 1] - row);
  const int32_t* const table = steps.block_table + sequence * steps.max_pages;
  T* const kept = static_cast<T*>(a.kept.data) + column;
  const Columns<T, aligned> columns{a, column, count};
  Group sum = columns.bias();
  for (int k = least(position, a.taps - 1); k > 0; --k) {
    const int from = static_cast<int>(position) - k, page_size = static_cast<int>(a.kept.page_size);
    columns.add_tap(sum, k,
                    k <= in_batch
                        ? columns.product(row - k)
                        : load_group<aligned>(
                              kept + table[from / page_size] * a.kept.page + from % page_size * a.kept.token, count));
  }
  const Group product = columns.product(row);
  store_group<aligned>(kept + steps.token_page[row] * a.kept.page + steps.token_offset[row] * a.kept.token, product,
                       count);
  columns.add_tap(sum, 0, product);
  store_gated(a, columns, row, sum);
}

template <class T, bool aligned>
__global__ void __launch_bounds__(elementwise_threads)
    short_conv_backward_kernel(ShortConvBackwardArgs a, Tiling tiling, SequenceBounds bounds) {
  const auto [within, column, count] = elements_of_thread(tiling);
  if (count == 0) return;
  const int64_t row = bounds.at[0] + within;
  const int sequence = sequence_of(bounds.at, bounds.count, row);
  const Columns<T, aligned> columns{a, column, count};
  T* const grad = row_of<T>(a.grad_bcx, row) + column;

  Group convolved = columns.bias();
  for (int k = least(row - bounds.at[sequence], a.taps - 1); k >= 0; --k)
    columns.add_tap(convolved, k, columns.product(row - k));
  Group of_c = columns.of(a.grad_out, row);
  LATHE_UNROLL
  for (int i = 0; i < group_elements; ++i) of_c.at[i] *= to_float(from_float<T>(convolved.at[i]));
  store_group<aligned>(grad + a.columns, of_c, count);

  Group of_product = {};
  const int after = least(bounds.at[sequence + 1] - 1 - row, a.taps - 1);
  for (int k = 0; k <= after; ++k) {
    Group gated = columns.of(a.grad_out, row + k);
    const Group c = columns.c(row + k);
    LATHE_UNROLL
    for (int i = 0; i < group_elements; ++i) gated.at[i] *= c.at[i];
    columns.add_tap(of_product, k, gated);
  }
  Group of_b = columns.x(row), of_x = columns.b(row);
  LATHE_UNROLL
  for (int i = 0; i < group_elements; ++i) {
    of_b.at[i] *= of_product.at[i];
    of_x.at[i] *= of_product.at[i];
  }
  store_group<aligned>(grad, of_b, count);
  store_group<aligned>(grad + 2 * a.columns, of_x, count);
}

// Of one tap, whose token is `before` before.
template <class T>
__device__ __forceinline__ float sum_of_products(const ShortConvWeightGradArgs& a, int64_t column, int before,
                                                 int64_t first, int64_t end) {
  float sum = 0.0f;
#pragma unroll 2
  for (int64_t row = first; row < end; row += weight_warps) {
    const T *const own = row_of<T>(a.bcx, row) + column, *const from = row_of<T>(a.bcx, row - before) + column;
    const float product = to_float(from_float<T>(to_float(from[0]) * to_float(from[2 * a.columns])));
    sum = fmaf(to_float(row_of<T>(a.grad_out, row)[column]) * to_float(own[a.columns]), product, sum);
  }
  return sum;
}

template <class T>
__device__ __forceinline__ float sum_of_gated(const ShortConvWeightGradArgs& a, int64_t column, int64_t first,
                                              int64_t end) {
  float sum = 0.0f;
#pragma unroll 2
  for (int64_t row = first; row < end; row += weight_warps)
    sum += to_float(row_of<T>(a.grad_out, row)[column]) * to_float(row_of<T>(a.bcx, row)[a.columns + column]);
  return sum;
}

// A block for one tap, or the bias.
template <class T>
__global__ void __launch_bounds__(weight_warps * 32)
    short_conv_weight_gradient_kernel(ShortConvWeightGradArgs a, int first_tap, SequenceBounds bounds) {
  WeightSums& sums = block_shared<WeightSums>();
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, tap = first_tap + static_cast<int>(blockIdx.y);
  const int64_t column = int64_t{blockIdx.x} * weight_columns + lane;
  const bool inside = column < a.column_end, is_bias = tap == a.taps;
  const int before = is_bias ? 0 : a.taps - 1 - tap;
  float* const gradient = is_bias ? a.grad_bias + column : a.grad_weight + column * a.taps + tap;
  float total = inside && warp == 0 ? *gradient : 0.0f;
  for (int s = 0; s < bounds.count; ++s) {
    const int64_t begin = bounds.at[s], end = bounds.at[s + 1];
    // The first of the warp's tokens that has one so far before it.
    const int64_t first = begin + (warp < before ? warp + weight_warps : warp);
    float sum = 0.0f;
    if (inside)
      sum = is_bias ? sum_of_gated<T>(a, column, first, end) : sum_of_products<T>(a, column, before, first, end);
    total += sum_of_warps(sums, sum);
  }
  if (inside && warp == 0) *gradient = total;
}

// Whether groups of B, C and x of all rows can be moved whole.
template <class T>
bool groups_aligned(const ShortConv& conv) {
  return rows_aligned<T>(conv.bcx) && conv.columns * static_cast<int64_t>(sizeof(T)) % 16 == 0;
}

template <class T>
void forward(const ShortConvForwardArgs& a) {
  const bool whole = groups_aligned<T>(a) && rows_aligned<T>(a.out);
  for_each_launch(a.steps.bounds, a.steps.sequences, [&](const SequenceBounds& bounds) {
    launch_elementwise("short_conv_forward", bounds.at[bounds.count] - bounds.at[0], a.columns,
                       whole ? short_conv_forward_kernel<T, true> : short_conv_forward_kernel<T, false>, a, bounds);
  });
}

template <class T>
void forward_over_pages(const ShortConvForwardArgs& a) {
  const T* const kept = static_cast<const T*>(a.kept.data);
  const bool whole = groups_aligned<T>(a) && rows_aligned<T>(a.out) && rows_aligned(kept, a.kept.page) &&
                     rows_aligned(kept, a.kept.token);
  launch_elementwise("short_conv_paged", a.row_end, a.columns,
                     whole ? short_conv_paged_kernel<T, true> : short_conv_paged_kernel<T, false>, a);
}

template <class T>
void backward(const ShortConvBackwardArgs& a) {
  const bool whole = groups_aligned<T>(a) && rows_aligned<T>(a.grad_bcx) && rows_aligned<T>(a.grad_out);
  for_each_launch(a.cu_seqlens, a.sequences, [&](const SequenceBounds& bounds) {
    launch_elementwise("short_conv_backward", bounds.at[bounds.count] - bounds.at[0], a.columns,
                       whole ? short_conv_backward_kernel<T, true> : short_conv_backward_kernel<T, false>, a, bounds);
  });
}

template <class T>
void weight_gradient(const ShortConvWeightGradArgs& a) {
  const int first = a.grad_weight != nullptr ? 0 : a.taps, end = a.grad_bias != nullptr ? a.taps + 1 : a.taps;
  const LaunchConfig config{.name = "short_conv_weight_gradient",
                            .grid = dim3(static_cast<unsigned>((a.column_end + weight_columns - 1) / weight_columns),
                                         static_cast<unsigned>(end - first)),
                            .block = dim3(weight_warps * 32)};
  for_each_launch(a.cu_seqlens, a.sequences, [&](const SequenceBounds& bounds) {
    launch(config, short_conv_weight_gradient_kernel<T>, a, first, bounds);
  });
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
void short_conv_forward_rows(const ShortConvForwardArgs& args) {
  with_element(args.dtype,
               [&]<class T>(T) { args.kept.data != nullptr ? forward_over_pages<T>(args) : forward<T>(args); });
}
template void short_conv_forward_rows<DeviceKind::LATHE_CUDA_NAMESPACE>(const ShortConvForwardArgs&);

template <DeviceKind>
void short_conv_backward_rows(const ShortConvBackwardArgs& args) {
  with_element(args.dtype, [&]<class T>(T) { backward<T>(args); });
}
template void short_conv_backward_rows<DeviceKind::LATHE_CUDA_NAMESPACE>(const ShortConvBackwardArgs&);

template <DeviceKind>
void short_conv_weight_grad_columns(const ShortConvWeightGradArgs& args) {
  with_element(args.dtype, [&]<class T>(T) { weight_gradient<T>(args); });
}
template void short_conv_weight_grad_columns<DeviceKind::LATHE_CUDA_NAMESPACE>(const ShortConvWeightGradArgs&);

}  // namespace lathe::kernels
