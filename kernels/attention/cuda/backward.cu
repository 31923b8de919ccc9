// attention_backward: row dots, then the gradients of keys and values, then those of queries (backward.cuh). On sm_90a
// backward_sm_90a.cu takes what it can of these.
#include "kernels/attention/cuda/arguments.h"

#include "kernels/attention/cuda/key_gradient.cuh"
#include "kernels/attention/cuda/query_gradient.cuh"
#include "kernels/cuda/element.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

using namespace flash;

template <class Shape, class Resources = typename Shape::Resources>
__global__ void __launch_bounds__(Resources::threads, Resources::blocks)
    attention_key_gradient_kernel(Resources, Backward<typename Shape::T> a, Sequences sequences) {
  const int block = static_cast<int>(blockIdx.x);
  // A sequence's first keys are seen by most: they come first.
  key_piece_gradients<Shape>(a, find_piece(sequences, block / a.kv_heads), block % a.kv_heads);
}

template <class Shape, class Resources = typename Shape::Resources>
__global__ void __launch_bounds__(Resources::threads, Resources::blocks)
    attention_query_gradient_kernel(Resources, Backward<typename Shape::T> a, Sequences sequences) {
  const int block = static_cast<int>(blockIdx.x);
  // The last queries see most.
  query_piece_gradients<Shape>(a, find_piece(sequences, sequences.pieces() - 1 - block / a.heads), block % a.heads);
}

constexpr int dot_warps = 4;

// D = rowsum(grad_out ∘ out): `lanes` of a warp for each token and head, so that with D = 64 a warp reads four rows
// at once. A lane has the same terms, and they meet in the same order, as if a row had the whole warp.
template <class T, int lanes>
__global__ void __launch_bounds__(dot_warps * 32) attention_row_dots_kernel(Backward<T> a, bool aligned) {
  const int lane = static_cast<int>(threadIdx.x) % lanes;
  const int64_t row = (int64_t{blockIdx.x} * (dot_warps * 32) + threadIdx.x) / lanes;
  const bool there = row < a.tokens * a.heads;
  const int64_t token = there ? row / a.heads : 0, head = there ? row % a.heads : 0;
  const T *grad_out = a.grad_out.at(token, head), *out = a.out.at(token, head);
  float sum = 0.0f;
  for (int i = lane * group_elements; i < a.head_dim; i += lanes * group_elements) {
    const int count = a.head_dim - i < group_elements ? a.head_dim - i : group_elements;
    const Group x = aligned ? load_group<true>(grad_out + i, count) : load_group<false>(grad_out + i, count);
    const Group y = aligned ? load_group<true>(out + i, count) : load_group<false>(out + i, count);
    LATHE_UNROLL
    for (int j = 0; j < group_elements; ++j) sum = fmaf(x.at[j], y.at[j], sum);
  }
  sum = warp_sum<lanes>(sum);
  if (lane == 0 && there) a.dots[head * a.tokens + token] = sum;
}

template <class T>
Backward<T> backward_of(const AttentionBackwardCuda& args) {
  Backward<T> a{};
  static_cast<Gradients<T>&>(a) = gradients_of<T>(args);
  a.grad_out = rows_of<const T>(args.grad_out), a.out = rows_of<const T>(args.out);
  a.q = rows_of<const T>(args.q), a.k = rows_of<const T>(args.k), a.v = rows_of<const T>(args.v);
  return a;
}

template <class T, int lanes>
void row_dots(const AttentionBackwardCuda& args) {
  const Backward<T> a = backward_of<T>(args);
  constexpr int rows = dot_warps * 32 / lanes;
  launch({.name = "attention_row_dots",
          .grid = dim3(static_cast<unsigned>((a.tokens * a.heads + rows - 1) / rows)),
          .block = dim3(dot_warps * 32)},
         attention_row_dots_kernel<T, lanes>, a, a.grad_out.aligned && a.out.aligned);
}
template <class T>
void row_dots(const AttentionBackwardCuda& args) {
  const int64_t groups = args.head_dim / group_elements;
  groups <= 8 ? row_dots<T, 8>(args) : groups <= 16 ? row_dots<T, 16>(args) : row_dots<T, 32>(args);
}

template <class Keys, class Queries>
void gradients(const AttentionBackwardCuda& args) {
  const auto a = backward_of<typename Keys::T>(args);
  for_each_launch_of_pieces(args, Keys::own, [&](const Sequences& sequences) {
    launch("attention_key_gradient", dim3(static_cast<unsigned>(sequences.pieces() * a.kv_heads)),
           attention_key_gradient_kernel<Keys>, a, sequences);
  });
  for_each_launch_of_pieces(args, Queries::own, [&](const Sequences& sequences) {
    launch("attention_query_gradient", dim3(static_cast<unsigned>(sequences.pieces() * a.heads)),
           attention_query_gradient_kernel<Queries>, a, sequences);
  });
}

// All instances; head sizes between them take the next one's. f32 above D = 64 is for correctness, not for speed. What
// nvcc makes of them stands in kernels/cuda/resources.txt.
template <class T>
void choose(const AttentionBackwardCuda& args) {
  if (args.head_dim <= 64)
    return gradients<BackwardShape<T, 64, 4, 32, 32, 2>, BackwardShape<T, 64, 4, 32, 32, 2>>(args);
  if (args.head_dim <= 96)
    return gradients<BackwardShape<T, 96, 4, 16, 32, 2>, BackwardShape<T, 96, 4, 16, 32, 2>>(args);
  if (args.head_dim <= 128)
    return gradients<BackwardShape<T, 128, 4, 16, 32, 2>, BackwardShape<T, 128, 4, 16, 32, 2>>(args);
  return gradients<BackwardShape<T, 256, 4, 16, 16, 1, true>, BackwardShape<T, 256, 4, 16, 16, 1>>(args);
}
template <>
void choose<float>(const AttentionBackwardCuda& args) {
  if (args.head_dim <= 64)
    return gradients<BackwardShape<float, 64, 4, 16, 32, 2>, BackwardShape<float, 64, 4, 16, 32, 2>>(args);
  if (args.head_dim <= 128)
    return gradients<BackwardShape<float, 128, 2, 16, 16, 2>, BackwardShape<float, 128, 2, 16, 16, 2>>(args);
  return gradients<BackwardShape<float, 256, 1, 16, 16, 1, true>, BackwardShape<float, 256, 1, 16, 16, 1>>(args);
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
void attention_backward_tiles(const AttentionBackwardCuda& args) {
  with_element(args.dtype, [&]<class T>(T) { row_dots<T>(args); });
  if (attention_takes_warpgroups<DeviceKind::LATHE_CUDA_NAMESPACE>(args))
    return attention_backward_warpgroups<DeviceKind::LATHE_CUDA_NAMESPACE>(args);
  with_element(args.dtype, [&]<class T>(T) { choose<T>(args); });
}
template void attention_backward_tiles<DeviceKind::LATHE_CUDA_NAMESPACE>(const AttentionBackwardCuda&);

}  // namespace lathe::kernels
