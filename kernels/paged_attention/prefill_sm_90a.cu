// paged_attention's prefill by wgmma (sm_90a): a block for each tile of query rows and kv head
// (kernels/attention/cuda/attend_warpgroups.cuh), whose keys come a page at a time, each a box of its own. A page
// begins at a multiple of eight rows of a chunk, which is where boxes in 128-byte swizzle may begin.
#include "kernels/attention/cuda/attend_warpgroups.cuh"
#include "kernels/cuda/dependent_launch.h"
#include "kernels/cuda/ptx/grid_dependency.h"
#include "kernels/paged_attention/cuda.h"
#include "kernels/paged_attention/paged_tiles.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

using namespace flash;

// All pages as a matrix: a row for each token of a page and kv head.
struct PageBoxes {
  TensorMap k, v;
  int k_page, k_head, v_page, v_head;  // rows from page to page and head to head
  int page_shift;                      // log2 of the page size
};

// Those of a sequence and kv head. Of a chunk's pages each lane copies the one that it has found.
struct PagedBoxKeys {
  const PageBoxes& all;
  const int32_t* table;
  int length, kv_head;
  int page = 0;  // the lane's

  // Past the sequence's end the last page comes again: its rows are keys that nobody sees, and values that are cleared.
  __device__ __forceinline__ void find(int chunk_index) {
    const int number = (chunk_index * chunk >> all.page_shift) + lane(), last = (length - 1) >> all.page_shift;
    page = table[number < last ? number : last];
  }
  template <class Panels>
  __device__ __forceinline__ void keys(Panels& to, MBarrier& barrier) const {
    copy(to, all.k, page * all.k_page + kv_head * all.k_head, barrier);
  }
  template <class Panels>
  __device__ __forceinline__ void values(Panels& to, MBarrier& barrier) const {
    copy(to, all.v, page * all.v_page + kv_head * all.v_head, barrier);
  }

 private:
  static __device__ __forceinline__ int lane() { return static_cast<int>(threadIdx.x) % 32; }

  template <class Panels>
  __device__ __forceinline__ void copy(Panels& to, const TensorMap& map, int row, MBarrier& barrier) const {
    const int first = lane() << all.page_shift;  // row of the chunk
    if (first >= chunk) return;
    LATHE_UNROLL
    for (int p = 0; p < Panels::panels; ++p) tensor_copy(to.panel[p].elements + first * 64, map, row, 64 * p, barrier);
  }
};

template <class Shape, class Resources = typename Shape::Resources>
__global__ void __launch_bounds__(Resources::threads, Resources::blocks)
    paged_prefill_warpgroup_kernel(Resources, const __grid_constant__ PageBoxes pages, TileCall<typename Shape::T> call,
                                   PagedSteps batch) {
  begin_dependent();
  Tile tile = tile_of_sequence(batch, call.group);
  if (tile.rows <= paged_decode_rows) return;
  const int length = tile.first_position + tile.rows / call.group;
  if (!take_rows(tile, Shape::rows)) return;
  attend_tile_by_warpgroups<Shape>(
      call, tile, PagedBoxKeys{pages, batch.block_table + blockIdx.z * batch.max_pages, length, tile.kv_head});
}

// ---- host ----

// The pages' matrix; a token's row is its neighbour's next.
TensorMapArgs page_map_args(const PageSide& side, const PagedAttentionCuda& args) {
  return {.data = side.data,
          .rows = ((args.pages - 1) * side.page + (args.kv_heads - 1) * side.head) / side.token + args.page_size,
          .columns = args.head_dim,
          .row_stride = side.token,
          .box_rows = static_cast<int>(args.page_size),
          .box_columns = 64};
}
bool boxes_serve(const PageSide& side, const PagedAttentionCuda& args) {
  return side.token > 0 && side.page >= 0 && side.head >= 0 && side.page % side.token == 0 &&
         side.head % side.token == 0 && why_no_tensor_map(page_map_args(side, args))[0] == 0;
}

template <class Shape>
void prefill(const PagedAttentionCuda& args) {
  const auto rows = [](int64_t stride, const PageSide& side) { return static_cast<int>(stride / side.token); };
  const PageBoxes pages{make_tensor_map(page_map_args(args.k, args)),
                        make_tensor_map(page_map_args(args.v, args)),
                        rows(args.k.page, args.k),
                        rows(args.k.head, args.k),
                        rows(args.v.page, args.v),
                        rows(args.v.head, args.v),
                        page_shift_of(args.page_size)};
  launch_dependent("paged_prefill_warpgroup",
                   dim3(static_cast<unsigned>((args.most_tiles_rows + Shape::rows - 1) / Shape::rows),
                        static_cast<unsigned>(args.kv_heads), static_cast<unsigned>(args.batch.sequences)),
                   paged_prefill_warpgroup_kernel<Shape>, pages,
                   tile_call<typename Shape::T>(args, args.lse, args.lse_head), args.batch);
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
bool paged_prefill_takes_warpgroups(const PagedAttentionCuda& args) {
  return args.dtype == args.page_dtype && args.dtype != DType::f32 && flash::warpgroups_take_head(args.head_dim) &&
         runs_sm_90a() && boxes_serve(args.k, args) && boxes_serve(args.v, args);
}
template bool paged_prefill_takes_warpgroups<DeviceKind::LATHE_CUDA_NAMESPACE>(const PagedAttentionCuda&);

template <DeviceKind>
void paged_prefill_warpgroups(const PagedAttentionCuda& args) {
  flash::with_warpgroup_shape(args.dtype, args.head_dim, [&]<class Shape>() { prefill<Shape>(args); });
}
template void paged_prefill_warpgroups<DeviceKind::LATHE_CUDA_NAMESPACE>(const PagedAttentionCuda&);

}  // namespace lathe::kernels
