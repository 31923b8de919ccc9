// Bound by bandwidth: a thread moves, or sums, the same eight columns of the rows it is given.
#include "kernels/embedding/cuda.h"

#include "kernels/cuda/element.h"
#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/indices.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

// Rows that a thread has columns of, 32 bytes of them: with 16, memory rested while blocks came and went (79 % of an
// H200's bandwidth); with 64, ptxas spilled to keep 32 registers.
template <class Bits>
constexpr int rows_of_thread = 4 / sizeof(Bits);

template <class Bits, class Ids, bool aligned>
__global__ void __launch_bounds__(elementwise_threads)
    embedding_forward_kernel(EmbeddingForwardCuda a, Tiling tiling, Ids ids, int64_t first, int64_t rows) {
  const auto [group_of_rows, column, count] = elements_of_thread(tiling);
  if (count == 0) return;
  const bool whole = aligned && count == group_elements;
  const int64_t first_row = group_of_rows * rows_of_thread<Bits>;
  int64_t id[rows_of_thread<Bits>];
  GroupBits<Bits> bits[rows_of_thread<Bits>];
  LATHE_UNROLL
  for (int r = 0; r < rows_of_thread<Bits>; ++r) {
    id[r] = first_row + r < rows ? int64_t{ids[first_row + r]} : int64_t{-1};
    if (whole && id[r] >= 0 && id[r] < a.vocabulary) bits[r] = load_bits(row_of<Bits>(a.weight, id[r]) + column);
  }
  LATHE_UNROLL
  for (int r = 0; r < rows_of_thread<Bits>; ++r) {
    if (first_row + r >= rows) return;
    Bits* const out = row_of<Bits>(a.out, first + first_row + r) + column;
    if (id[r] < 0 || id[r] >= a.vocabulary) {
      for (int j = 0; j < count; ++j) out[j] = static_cast<Bits>(~Bits{0});  // NaN in every floating dtype
    } else if (whole) {
      store_bits(out, bits[r]);
    } else {
      const Bits* const weight = row_of<Bits>(a.weight, id[r]) + column;
      for (int j = 0; j < count; ++j) out[j] = weight[j];
    }
  }
}

// The CPU's order of sums: tokens of a sequence first, then the sequences. Of a token that comes often, `together`
// gradients are under way at a time.
constexpr int together = 4;

template <class T, bool aligned>
__global__ void __launch_bounds__(elementwise_threads)
    embedding_backward_kernel(EmbeddingBackwardArgs a, Tiling tiling) {
  const auto [r, column, count] = elements_of_thread(tiling);
  if (count == 0) return;
  const int32_t pieces_end = a.row_piece[r + 1];
  int32_t piece = a.row_piece[r];
  if (piece == pieces_end) return;
  float* row = row_of<float>(a.grad_weight, a.row_id[r]) + column;
  Group total = load_group<aligned>(row, count);
  for (; piece < pieces_end; ++piece) {
    Group sum = {};
    const int32_t end = a.piece_start[piece + 1];
    for (int32_t first = a.piece_start[piece]; first < end; first += together) {
      int32_t token[together];
      Group grad[together];
      LATHE_UNROLL
      for (int i = 0; i < together; ++i) token[i] = a.order[first + i < end ? first + i : end - 1];
      LATHE_UNROLL
      for (int i = 0; i < together; ++i)
        if (first + i < end) grad[i] = load_group<aligned>(row_of<T>(a.grad_out, token[i]) + column, count);
      LATHE_UNROLL
      for (int i = 0; i < together; ++i) {
        if (first + i >= end) continue;
        LATHE_UNROLL
        for (int j = 0; j < group_elements; ++j) sum.at[j] += grad[i].at[j];
      }
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
    launch_elementwise("embedding_forward", (count + rows_of_thread<Bits> - 1) / rows_of_thread<Bits>, a.columns,
                       aligned ? embedding_forward_kernel<Bits, Ids, true> : embedding_forward_kernel<Bits, Ids, false>,
                       a, ids, first, count);
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
