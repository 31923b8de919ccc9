// paged_attention over attention's own tiles (kernels/attention/cuda/attend.cuh): prefill takes them whole, on sm_90a
// those of prefill_sm_90a.cu where it can. A decoded sequence is one tile of at most 16 rows under all of its keys, for
// one warp: enough of them keep memory busy. Where they are too few, each is split into runs of chunks; every chunk's
// result is put away, and merged in order by the arithmetic that merges them within a tile. So the split shows in no
// bit, and is free to follow the number of sequences. On sm_90a few sequences that are not long go through
// decode_sm_90a.cu, by the same arithmetic.
#include "kernels/paged_attention/cuda.h"

#include "kernels/cuda/dependent_launch.h"
#include "kernels/cuda/element.h"
#include "kernels/cuda/ptx/grid_dependency.h"
#include "kernels/paged_attention/chunk_results.cuh"
#include "kernels/paged_attention/paged_call.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

using namespace flash;

// Tiles of Shape under all of their keys, of sequences with more than `above` and at most `most` rows.
template <class Shape, class Resources = typename Shape::Resources>
__global__ void __launch_bounds__(Resources::threads, Resources::blocks)
    paged_tile_kernel(Resources, Paged<typename Shape::T> a, int above, int most) {
  begin_dependent();
  Tile tile = tile_of_sequence(a.batch, a.tiles.group);
  if (tile.rows <= above || tile.rows > most) return;
  if (!take_rows(tile, Shape::rows)) return;
  attend_tile<Shape>(a.tiles, tile, keys_of_sequence(a));
}

// ---- decode in runs ----

template <class T>
__device__ __forceinline__ Partial partial_of(const Paged<T>& a, int chunk_of_sequence) {
  const int64_t slot = (int64_t{blockIdx.z} * a.kv_heads + blockIdx.y) * a.most_chunks + chunk_of_sequence;
  float* start = a.partials + slot * a.partial_floats;
  const int width = (a.tiles.head_dim + 15) / 16 * 16;
  return {start, width, start + a.most_rows * width, start + a.most_rows * (width + 1)};
}

// Without the number of blocks, ptxas settled on 80 registers and spilled at D = 256.
template <class Shape, class Resources = typename Shape::Resources>
__global__ void __launch_bounds__(Resources::threads, Resources::blocks)
    paged_run_kernel(Resources, Paged<typename Shape::T> a) {
  begin_dependent();
  const Tile tile = tile_of_sequence(a.batch, a.tiles.group);
  if (tile.rows == 0 || tile.rows > paged_decode_rows) return;
  const ChunkRange all = chunks_of(tile, a.tiles.group, a.tiles.rule.window);
  const int run = static_cast<int>(blockIdx.x);
  const int runs = a.runs < all.end - all.begin ? a.runs : all.end - all.begin;
  if (run >= runs) return;
  const int count = all.end - all.begin;
  const ChunkRange own{all.begin + count * run / runs, all.begin + count * (run + 1) / runs};
  const auto put_away = [&](int c, const auto& maximum, const auto& sum, const auto& weights, const auto& values) {
    put_chunk_away<Shape>(partial_of(a, c - all.begin), tile.rows, a.tiles.head_dim, maximum, sum, weights, values);
  };
  attend_chunks<Shape>(a.tiles, tile, own, keys_of_sequence(a), put_away);
}

constexpr int merge_threads = 128;

// A thread for four elements of a row.
template <class T>
__global__ void __launch_bounds__(merge_threads) paged_merge_kernel(Paged<T> a) {
  begin_dependent();
  const Tile tile = tile_of_sequence(a.batch, a.tiles.group);
  if (tile.rows == 0 || tile.rows > paged_decode_rows) return;
  const ChunkRange all = chunks_of(tile, a.tiles.group, a.tiles.rule.window);
  const int quads = (a.tiles.head_dim + 15) / 16 * 4;
  const int item = static_cast<int>(blockIdx.x) * merge_threads + static_cast<int>(threadIdx.x);
  const int row = item / quads, column = item % quads * 4;
  if (row >= tile.rows || column >= a.tiles.head_dim) return;

  merge_chunks(a.tiles, tile, all.end - all.begin, row, column, [&](int i) { return partial_of(a, i); });
}

template <class Prefill, class Decode>
void attend(const PagedAttentionCuda& args) {
  using T = typename Prefill::T;
  static_assert(Decode::rows == paged_decode_rows);
  const Paged<T> a = paged_call<T>(args);
  const auto grid = [&](int64_t x) {
    return dim3(static_cast<unsigned>(x), static_cast<unsigned>(args.kv_heads),
                static_cast<unsigned>(args.batch.sequences));
  };
  const auto launch_tiles = [&]<class Shape>(Shape, int64_t rows, int above, int most) {
    launch_dependent("paged_attention", grid((rows + Shape::rows - 1) / Shape::rows), paged_tile_kernel<Shape>, a,
                     above, most);
  };
  if (args.most_tiles_rows > 0) {
    if (paged_prefill_takes_warpgroups<DeviceKind::LATHE_CUDA_NAMESPACE>(args))
      paged_prefill_warpgroups<DeviceKind::LATHE_CUDA_NAMESPACE>(args);
    else
      launch_tiles(Prefill{}, args.most_tiles_rows, paged_decode_rows, INT32_MAX);
  }
  if (args.most_decode_rows == 0) return;
  if (paged_decode_takes_clusters<DeviceKind::LATHE_CUDA_NAMESPACE>(args))
    return paged_decode_clusters<DeviceKind::LATHE_CUDA_NAMESPACE>(args);
  if (args.runs == 1) return launch_tiles(Decode{}, args.most_decode_rows, 0, paged_decode_rows);
  launch_dependent("paged_runs", grid(args.runs), paged_run_kernel<Decode>, a);
  const int64_t items = args.most_decode_rows * ((args.head_dim + 15) / 16 * 4);
  launch_dependent(
      {.name = "paged_merge", .grid = grid((items + merge_threads - 1) / merge_threads), .block = dim3(merge_threads)},
      paged_merge_kernel<T>, a);
}

// All instances, for prefill and for decode: head size, warps, rows of each, blocks on a multiprocessor. Head sizes
// between them take the next one's, their rows filled up with zeros.
template <class T>
void choose(const PagedAttentionCuda& args) {
  if (args.head_dim <= 64) return attend<AttentionShape<T, 64, 4, 32, 2>, AttentionShape<T, 64, 1, 16, 7>>(args);
  if (args.head_dim <= 128) return attend<AttentionShape<T, 128, 4, 32, 2>, AttentionShape<T, 128, 1, 16, 4>>(args);
  return attend<AttentionShape<T, 256, 4, 16, 1>, AttentionShape<T, 256, 1, 16, 2>>(args);
}
template <>
void choose<float>(const PagedAttentionCuda& args) {
  if (args.head_dim <= 64)
    return attend<AttentionShape<float, 64, 4, 16, 2>, AttentionShape<float, 64, 1, 16, 3>>(args);
  if (args.head_dim <= 128)
    return attend<AttentionShape<float, 128, 2, 16, 1>, AttentionShape<float, 128, 1, 16, 2>>(args);
  using Widest = AttentionShape<float, 256, 1, 16, 1, 1>;  // for both: there is no room for more
  return attend<Widest, Widest>(args);
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
void paged_attention_tiles(const PagedAttentionCuda& args) {
  with_element(args.dtype, [&]<class T>(T) { choose<T>(args); });
}
template void paged_attention_tiles<DeviceKind::LATHE_CUDA_NAMESPACE>(const PagedAttentionCuda&);

}  // namespace lathe::kernels
