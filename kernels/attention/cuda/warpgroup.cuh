// What attention's kernels by wgmma (sm_90a) share: rows of a head in shared memory as bulk copies bring them, and the
// two products of a warpgroup with them. The bits are those of mma.sync (kernels/cuda/tile/product.cuh): sums along the
// same steps of sixteen, which wgmma adds as mma.sync does (kernels/matmul/cuda/dense_sm_90a.cu).
#pragma once

#include "kernels/attention/params.h"
#include "kernels/cuda/ptx/wgmma.h"
#include "kernels/cuda/tile/bulk_pipeline.cuh"
#include "kernels/cuda/tile/product.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE::flash {

inline constexpr int box_rows = 64;

// The columns of a head of some rows, in panels of 64. With D = 96 half of the last one is the next head's, and unread.
template <class T_, int rows_, int D_>
struct HeadPanels {
  using T = T_;
  static constexpr int rows = rows_, D = D_, panels = (D + 63) / 64;
  static constexpr int panel_bytes = rows * 64 * static_cast<int>(sizeof(T));
  static constexpr unsigned bytes = panels * panel_bytes;
  static_assert(rows % box_rows == 0 && D % 16 == 0);

  alignas(1024) SwizzledTile<T, rows, 64> panel[panels];

  // Rows from `token` on of the head that begins at `column`, zeros past the last; `bytes` complete on the barrier.
  __device__ __forceinline__ void copy(const TensorMap& map, int token, int column, MBarrier& full) {
    LATHE_UNROLL
    for (int p = 0; p < panels; ++p) {
      LATHE_UNROLL
      for (int row = 0; row < rows; row += box_rows)
        tensor_copy(panel[p].elements + row * 64, map, token + row, column + 64 * p, full);
    }
  }

  // Zeros in the rows from `first` on, by all lanes of a warp, for wgmma after the next barrier.
  __device__ __forceinline__ void clear_rows(int first) {
    constexpr int vector = vector_elements<T>, row_vectors = 64 / vector;
    LATHE_UNROLL
    for (int p = 0; p < panels; ++p) {
#pragma unroll 1
      for (int i = first * row_vectors + static_cast<int>(threadIdx.x) % 32; i < rows * row_vectors; i += 32)
        store_vector<uint4>(panel[p].elements + i * vector, uint4{});
    }
    fence_proxy_async();
  }
};

// The ring of a sequence's rows, box_rows at a time, which a warp produces. Past the sequence's end copies bring the
// next one's rows, and an infinity among those times a weight of 0 is NaN: the warp waits until a sequence's last step
// has landed, makes zeros of them, and only then says that the stage is full.
template <int stages_>
struct SequencePipeline : BulkPipeline<stages_> {
  using Place = RingPlace<stages_>;
  MBarrier landed;

  __device__ __forceinline__ void init(int consuming_warps) {
    mbarrier_init(landed, 1);
    BulkPipeline<stages_>::init(consuming_warps);
  }

  // By all lanes of the producing warp: copy(barrier), on all of them, starts copies of so many bytes to the stage. Of
  // a step that is not `whole` clear() makes zeros once they have landed; `before` counts those before it.
  template <class Copy, class Clear>
  __device__ __forceinline__ void fill(Place place, unsigned bytes, bool whole, int before, const Copy& copy,
                                       const Clear& clear) {
    MBarrier& full = this->full[place.stage];
    this->wait_until_empty(place);
    MBarrier& barrier = whole ? full : landed;
    if (threadIdx.x % 32 == 0) mbarrier_arrive_expect_tx(barrier, bytes);
    copy(barrier);
    if (whole) return;
    mbarrier_wait(landed, static_cast<unsigned>(before) & 1);
    clear();
    __syncwarp();  // all lanes have stored their zeros, and fenced them
    if (threadIdx.x % 32 == 0) mbarrier_arrive(full);
  }
};

// Queues s = (64 rows of `left` from `first_row` on) · rightᵀ.
template <class Left, class Right, int sums>
__device__ __forceinline__ void queue_transposed(float (&s)[sums], const Left& left, int first_row,
                                                 const Right& right) {
  static_assert(Left::D == Right::D && Right::rows == 2 * sums);
  const auto rows = wgmma_operand<Major::k>(left.panel[0].elements + first_row * 64);
  const auto columns = wgmma_operand<Major::k>(right.panel[0].elements);
  LATHE_UNROLL
  for (int k = 0; k < Left::D; k += 16) {
    const int panel = k / 64, step = k % 64 / 16;
    wgmma(s, rows.moved_by(panel * Left::panel_bytes).next_k16(step),
          columns.moved_by(panel * Right::panel_bytes).next_k16(step), k > 0);
  }
  wgmma_commit();
}

// Queues o = weights · right, or o += that, of the columns of `right` from panel `first_panel` on that o has sums for.
enum class Onto { nothing, sums };
template <Onto onto, class T, int k, class Right, int sums>
__device__ __forceinline__ void queue_weighted(float (&o)[sums], const LeftOperand<T, 16, k>& weights,
                                               const Right& right, int first_panel = 0) {
  static_assert(Right::rows == k && 2 * sums <= Right::D);
  const auto rows =
      wgmma_operand<Major::mn>(right.panel[0].elements, Right::panel_bytes).moved_by(first_panel * Right::panel_bytes);
  LATHE_UNROLL
  for (int step = 0; step < k / 16; ++step)
    wgmma(o, weights.at[0][step], rows.next_k16(step), onto == Onto::sums || step > 0);
  wgmma_commit();
}

// After the wait.
template <class T, int k>
__device__ __forceinline__ void done_with(const LeftOperand<T, 16, k>& weights) {
  LATHE_UNROLL
  for (int step = 0; step < k / 16; ++step) wgmma_done_with(weights.at[0][step]);
}

// ---- host ----

inline bool warpgroups_take_head(int64_t head_dim) {
  return head_dim == 64 || head_dim == 96 || head_dim == 128 || head_dim == 256;
}

// All heads of the first `tokens` tokens.
inline TensorMapArgs head_map_args(const HeadRows& rows, int64_t tokens, int64_t heads, int64_t head_dim) {
  return {.data = rows.data,
          .rows = tokens,
          .columns = (heads - 1) * rows.head + head_dim,
          .row_stride = rows.token,
          .box_rows = box_rows,
          .box_columns = 64};
}
inline bool bulk_copies_serve(const HeadRows& rows, int64_t tokens, int64_t heads, int64_t head_dim) {
  return rows.head % 8 == 0 && rows.head >= 0 &&
         why_no_tensor_map(head_map_args(rows, tokens, heads, head_dim))[0] == 0;
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE::flash
