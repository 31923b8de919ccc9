// Bound by bandwidth. A row is that of one token and head: at most 32 groups of eight elements, a lane for each, so
// that short rows share a warp. (A warp to a row, as kernels/cuda/elementwise.h has it, leaves 24 lanes idle with
// D = 64.)
#include "kernels/attention_sinks/bodies.h"
#include "kernels/cuda/element.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/row.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

constexpr int threads = 128;

// A thread's group of eight elements. There are fewer than 2^32 rows: more would not fit into a card.
struct Place {
  bool there;  // else the first row's, and nothing may be written
  int64_t row, token, head;
  int lane;
  int64_t column;
};
// 2^shift lanes for each row.
__device__ __forceinline__ Place place_of(int64_t tokens, int64_t heads, int shift) {
  const int64_t row = (int64_t{blockIdx.x} * threads + threadIdx.x) >> shift;
  const int lane = static_cast<int>(threadIdx.x) & ((1 << shift) - 1);
  const bool there = row < tokens * heads;
  const unsigned number = there ? static_cast<unsigned>(row) : 0, per_token = static_cast<unsigned>(heads);
  return {there, row, number / per_token, number % per_token, lane, lane * group_elements};
}

template <class T>
__device__ __forceinline__ T* row_at(const HeadRows& rows, const Place& at) {
  return static_cast<T*>(rows.data) + at.token * rows.token + at.head * rows.head;
}

template <class T, bool aligned>
__global__ void __launch_bounds__(threads) attention_sinks_kernel(AttentionSinksArgs a, int shift) {
  const Place at = place_of(a.row_end, a.heads, shift);
  if (!at.there || at.column >= a.head_dim) return;
  const int count = group_size(a.head_dim, at.column);
  Group elements = load_group<aligned>(row_at<const T>(a.x, at) + at.column, count);
  const float lse = a.lse[at.head * a.lse_head + at.token], sink = to_float(static_cast<const T*>(a.sinks)[at.head]);
  const float factor = 1.0f / (1.0f + expf(sink - lse));
  LATHE_UNROLL
  for (int j = 0; j < group_elements; ++j) elements.at[j] *= factor;
  store_group<aligned>(row_at<T>(a.out, at) + at.column, elements, count);
  if (at.lane == 0 && a.lse_out != nullptr)
    a.lse_out[at.head * a.lse_out_head + at.token] = fmaxf(lse, sink) + log1pf(expf(-fabsf(lse - sink)));
}

template <class T, bool aligned>
__global__ void __launch_bounds__(threads) attention_sinks_backward_kernel(AttentionSinksBackwardArgs a, int shift) {
  const Place at = place_of(a.row_end, a.heads, shift);
  float sum = 0.0f;
  if (at.there && at.column < a.head_dim) {
    const int count = group_size(a.head_dim, at.column);
    const Group gradient = load_group<aligned>(row_at<const T>(a.grad_out, at) + at.column, count);
    const Group value = load_group<aligned>(row_at<const T>(a.out, at) + at.column, count);
    LATHE_UNROLL
    for (int j = 0; j < group_elements; ++j) sum = fmaf(gradient.at[j], value.at[j], sum);
  }
  for (int lanes = (1 << shift) / 2; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(full_warp, sum, lanes);
  if (!at.there || at.lane != 0) return;
  a.dots[at.row] = sum;
  a.shares[at.row] = expf(to_float(static_cast<const T*>(a.sinks)[at.head]) - a.lse[at.head * a.lse_head + at.token]);
}

// kernel(args, shift)
template <class Args>
void launch_rows(const char* name, void (*kernel)(Args, int), const Args& args) {
  int shift = 0;
  while ((int64_t{group_elements} << shift) < args.head_dim) ++shift;
  const int64_t lanes = (args.row_end * args.heads) << shift;
  launch({.name = name, .grid = dim3(static_cast<unsigned>((lanes + threads - 1) / threads)), .block = dim3(threads)},
         kernel, args, shift);
}

template <class T>
bool heads_aligned(const HeadRows& rows) {
  return rows_aligned(static_cast<const T*>(rows.data), rows.token) &&
         rows_aligned(static_cast<const T*>(rows.data), rows.head);
}

template <class T>
void forward(const AttentionSinksArgs& args) {
  const bool aligned = heads_aligned<T>(args.out) && heads_aligned<T>(args.x);
  launch_rows("attention_sinks", aligned ? attention_sinks_kernel<T, true> : attention_sinks_kernel<T, false>, args);
}

template <class T>
void backward(const AttentionSinksBackwardArgs& args) {
  const bool aligned = heads_aligned<T>(args.grad_out) && heads_aligned<T>(args.out);
  launch_rows("attention_sinks_backward",
              aligned ? attention_sinks_backward_kernel<T, true> : attention_sinks_backward_kernel<T, false>, args);
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
