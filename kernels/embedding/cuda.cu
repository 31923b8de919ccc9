// Bound by bandwidth: a thread moves, or sums, the same eight columns of the rows it is given.
#include "kernels/embedding/cuda.h"

#include "kernels/cuda/element.h"
#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/indices.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

template <class Bits, class Ids, bool aligned>
__global__ void __launch_bounds__(elementwise_threads)
    embedding_forward_kernel(EmbeddingForwardCuda a, Tiling tiling, Ids ids, int64_t first) {
  const auto [row, column, count] = elements_of_thread(tiling);
  if (count == 0) return;
  const int64_t id = ids[row];
  Bits* out = row_of<Bits>(a.out, first + row) + column;
  if (id < 0 || id >= a.vocabulary) {
    for (int j = 0; j < count; ++j) out[j] = static_cast<Bits>(~Bits{0});  // NaN in every floating dtype
    return;
  }
  const Bits* weight = row_of<Bits>(a.weight, id) + column;
  if (aligned && count == group_elements) {
    store_bits(out, load_bits(weight));
  } else {
    for (int j = 0; j < count; ++j) out[j] = weight[j];
  }
}

// The CPU's order of sums: tokens of a sequence first, then the sequences.
template <class T, bool aligned>
__global__ void __launch_bounds__(elementwise_threads)
    embedding_backward_kernel(EmbeddingBackwardArgs a, Tiling tiling) {
  const auto [r, column, count] = elements_of_thread(tiling);
  if (count == 0) return;
  float* row = row_of<float>(a.grad_weight, a.row_id[r]) + column;
  Group total = load_group<aligned>(row, count);
  for (int32_t piece = a.row_piece[r]; piece < a.row_piece[r + 1]; ++piece) {
    Group sum = {};
    for (int32_t k = a.piece_start[piece]; k < a.piece_start[piece + 1]; ++k) {
      const Group grad = load_group<aligned>(row_of<T>(a.grad_out, a.order[k]) + column, count);
      LATHE_UNROLL
      for (int j = 0; j < group_elements; ++j) sum.at[j] += grad.at[j];
    }
    LATHE_UNROLL
    for (int j = 0; j < group_elements; ++j) total.at[j] += sum.at[j];
  }
  store_group<aligned>(row, total, count);
}

template <class Bits>
void forward(const EmbeddingForwardCuda& a) {
  const bool aligned = rows_aligned<Bits>(a.out) && rows_aligned<Bits>(a.weight);
  for_each_launch(a.ids, a.rows, [&]<class Ids>(const Ids& ids, int64_t first, int64_t count) {
    launch_elementwise("embedding_forward", count, a.columns,
                       aligned ? embedding_forward_kernel<Bits, Ids, true> : embedding_forward_kernel<Bits, Ids, false>,
                       a, ids, first);
  });
}

template <class T>
void backward(const EmbeddingBackwardArgs& a) {
  const bool aligned = rows_aligned<float>(a.grad_weight) && rows_aligned<T>(a.grad_out);
  launch_elementwise("embedding_backward", a.row_end, a.columns,
                     aligned ? embedding_backward_kernel<T, true> : embedding_backward_kernel<T, false>, a);
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
void embedding_forward_rows(const EmbeddingForwardCuda& args) {
  args.element_bytes == 2 ? forward<uint16_t>(args) : forward<uint32_t>(args);
}
template void embedding_forward_rows<DeviceKind::LATHE_CUDA_NAMESPACE>(const EmbeddingForwardCuda&);

template <DeviceKind>
void embedding_backward_rows(const EmbeddingBackwardArgs& args) {
  with_element(args.dtype, [&]<class T>(T) { backward<T>(args); });
}
template void embedding_backward_rows<DeviceKind::LATHE_CUDA_NAMESPACE>(const EmbeddingBackwardArgs&);

}  // namespace lathe::kernels
