// Bound by bandwidth. A row is that of one token and head: at most 32 groups of eight elements, so that the sum of the
// backward needs a group from each lane, and short rows share a warp.
#include "kernels/attention_sinks/bodies.h"
#include "kernels/cuda/element.h"
#include "kernels/cuda/elementwise.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

constexpr int warps = 4;

struct Place {
  int64_t token, head;
};
// There are fewer than 2^32 rows: more would not fit into a card.
__device__ __forceinline__ Place place_of(int64_t row, int64_t heads) {
  const auto number = static_cast<unsigned>(row), per_token = static_cast<unsigned>(heads);
  return {number / per_token, number % per_token};
}

template <class T>
__device__ __forceinline__ T* row_at(const HeadRows& rows, const Place& at) {
  return static_cast<T*>(rows.data) + at.token * rows.token + at.head * rows.head;
}

template <class T, bool aligned>
__global__ void __launch_bounds__(elementwise_threads) attention_sinks_kernel(AttentionSinksArgs a, Tiling tiling) {
  const auto [row, column, count] = elements_of_thread(tiling);
  if (count == 0) return;
  const Place at = place_of(row, a.heads);
  const float lse = a.lse[at.head * a.lse_head + at.token], sink = to_float(static_cast<const T*>(a.sinks)[at.head]);
  const float factor = 1.0f / (1.0f + expf(sink - lse));
  Group elements = load_group<aligned>(row_at<const T>(a.x, at) + column, count);
  LATHE_UNROLL
  for (int j = 0; j < group_elements; ++j) elements.at[j] *= factor;
  store_group<aligned>(row_at<T>(a.out, at) + column, elements, count);
  if (column == 0 && a.lse_out != nullptr)
    a.lse_out[at.head * a.lse_out_head + at.token] = fmaxf(lse, sink) + log1pf(expf(-fabsf(lse - sink)));
}

// `width`, a power of two, lanes for each row.
template <class T, bool aligned>
__global__ void __launch_bounds__(warps * 32) attention_sinks_backward_kernel(AttentionSinksBackwardArgs a, int width) {
  const int lane = static_cast<int>(threadIdx.x) % width;
  const int64_t row = (int64_t{blockIdx.x} * (warps * 32) + threadIdx.x) / width;
  const bool there = row < a.row_end * a.heads;
  const Place at = place_of(there ? row : 0, a.heads);
  const int64_t column = lane * group_elements;
  float sum = 0.0f;
  if (there && column < a.head_dim) {
    const int count = group_size(a.head_dim, column);
    const Group gradient = load_group<aligned>(row_at<const T>(a.grad_out, at) + column, count);
    const Group value = load_group<aligned>(row_at<const T>(a.out, at) + column, count);
    LATHE_UNROLL
    for (int j = 0; j < group_elements; ++j) sum = fmaf(gradient.at[j], value.at[j], sum);
  }
  for (int lanes = width / 2; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(full_warp, sum, lanes);
  if (!there || lane != 0) return;
  a.dots[row] = sum;
  a.shares[row] = expf(to_float(static_cast<const T*>(a.sinks)[at.head]) - a.lse[at.head * a.lse_head + at.token]);
}

template <class T>
bool heads_aligned(const HeadRows& rows) {
  return rows_aligned(static_cast<const T*>(rows.data), rows.token) &&
         rows_aligned(static_cast<const T*>(rows.data), rows.head);
}

template <class T>
void forward(const AttentionSinksArgs& args) {
  const bool aligned = heads_aligned<T>(args.out) && heads_aligned<T>(args.x);
  launch_elementwise("attention_sinks", args.row_end * args.heads, args.head_dim,
                     aligned ? attention_sinks_kernel<T, true> : attention_sinks_kernel<T, false>, args);
}

template <class T>
void backward(const AttentionSinksBackwardArgs& args) {
  const bool aligned = heads_aligned<T>(args.grad_out) && heads_aligned<T>(args.out);
  int width = 1;
  while (width * group_elements < args.head_dim) width *= 2;
  const int64_t threads = args.row_end * args.heads * width;
  launch({.name = "attention_sinks_backward",
          .grid = dim3(static_cast<unsigned>((threads + warps * 32 - 1) / (warps * 32))),
          .block = dim3(warps * 32)},
         aligned ? attention_sinks_backward_kernel<T, true> : attention_sinks_backward_kernel<T, false>, args, width);
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
void attention_sinks_rows(const AttentionSinksArgs& args) {
  with_element(args.dtype, [&]<class T>(T) { forward<T>(args); });
}
template void attention_sinks_rows<DeviceKind::LATHE_CUDA_NAMESPACE>(const AttentionSinksArgs&);

template <DeviceKind>
void attention_sinks_backward_rows(const AttentionSinksBackwardArgs& args) {
  with_element(args.dtype, [&]<class T>(T) { backward<T>(args); });
}
template void attention_sinks_backward_rows<DeviceKind::LATHE_CUDA_NAMESPACE>(const AttentionSinksBackwardArgs&);

}  // namespace lathe::kernels
