// paged_attention's decode of few sequences (sm_90a): a cluster of blocks for each sequence and kv head, and in it a
// warp for every chunk of keys. All chunks come from memory at the same time, and are merged in order out of the
// blocks' shared memory: one launch, whose time is that of its waits for memory one after the other (where the sequence
// stands and lies; its queries, keys and values). A warp for all of a short sequence took 12 µs on an H200.
#include "kernels/cuda/dependent_launch.h"
#include "kernels/cuda/element.h"
#include "kernels/cuda/ptx/cluster.h"
#include "kernels/cuda/ptx/grid_dependency.h"
#include "kernels/cuda/ptx/load_early.h"
#include "kernels/paged_attention/chunk_results.cuh"
#include "kernels/paged_attention/paged_call.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

using namespace flash;

constexpr int most_blocks = 8;  // of a cluster

// Head size and warps of a block. Two chunks of 256 columns are all that a multiprocessor holds of keys and values.
template <class T_, int head_size, int warps_>
struct DecodeShape : AttentionShape<T_, head_size, 1, paged_decode_rows, 1> {
  using Tiles = AttentionShape<T_, head_size, 1, paged_decode_rows, 1>;
  static constexpr int warps = warps_, threads = 32 * warps;

  // What a warp has of its chunk: keys, whose place its outputs take, and values.
  struct Chunk {
    typename Tiles::ChunkTile keys, values;
    float maximum[paged_decode_rows], sum[paged_decode_rows];

    __device__ __forceinline__ Partial result() {
      constexpr int width = head_size + 8;  // eight rows' pairs lie in different banks
      static_assert(paged_decode_rows * width * sizeof(float) <= sizeof keys);
      return {reinterpret_cast<float*>(keys.elements), width, maximum, sum};
    }
  };
  struct Memory {
    typename Tiles::QueryTile queries;
    Chunk chunks[warps];
  };
  using Resources = BlockResources<threads, 1, sizeof(Memory), Cards::sm_90a>;
};

// Before anything may be read: what says where a sequence stands and lies comes into the second-level cache.
__device__ __forceinline__ void prefetch_places(const PagedSteps& batch) {
  if (threadIdx.x == 0) prefetch_line(batch.bounds + blockIdx.z);
  if (threadIdx.x == 1) prefetch_line(batch.contexts + blockIdx.z);
  if (threadIdx.x == 2) prefetch_line(batch.block_table + blockIdx.z * batch.max_pages);
}

// A warp's chunk by itself, and its result put where the keys were.
template <class Shape>
__device__ __forceinline__ void attend_chunk(const TileCall<typename Shape::T>& call, const Tile& tile, int c,
                                             const typename Shape::QueryTile& queries,
                                             typename Shape::Chunk& chunk_of) {
  typename Shape::Scores s;
  typename Shape::RowState maximum, sum;
  multiply_transposed(s, queries, 0, chunk_of.keys, call.head_dim);
  chunk_scores<typename Shape::T>(s, maximum, warp_rows(tile, call.group, 0, paged_decode_rows), c, call.rule);
  chunk_weights(s, maximum, sum, call.rule.unit);
  cp_async_wait<0>();
  __syncwarp();  // the values are there, and all lanes are done with the keys
  put_chunk_away<Shape>(chunk_of.result(), tile.rows, call.head_dim, maximum, sum, typename Shape::Weights(s, nullptr),
                        chunk_of.values);
}

// All blocks of a cluster, or the one.
template <bool alone>
__device__ __forceinline__ void sync_blocks() {
  if constexpr (alone) return __syncthreads();
  cluster_arrive();
  cluster_wait();
}

// Grids are (blocks of a cluster, kv heads, sequences). A block alone has no addresses to work out: a tenth of the
// code, which comes from memory, too.
template <class Shape, bool alone, class Resources = typename Shape::Resources>
__global__ void __launch_bounds__(Resources::threads, Resources::blocks)
    paged_decode_cluster_kernel(Resources, Paged<typename Shape::T> a) {
  using T = typename Shape::T;
  launch_dependents();
  prefetch_places(a.batch);
  auto& memory = *dynamic_shared<typename Shape::Memory>();
  const int warp = static_cast<int>(threadIdx.x / 32), rank = alone ? 0 : static_cast<int>(blockIdx.x);
  const PagedKeys<T> keys = keys_of_sequence(a);
  typename Shape::Chunk& own = memory.chunks[warp];
  int32_t pages[PagedKeys<T>::chunk_groups];
  const auto look_up = [&](int c) {
    LATHE_UNROLL
    for (int g = 0; g < PagedKeys<T>::chunk_groups; ++g) {
      const int64_t page = (c * chunk + g * PagedKeys<T>::group_rows) >> a.page_shift;
      pages[g] = load_early(keys.table + (page < a.batch.max_pages ? page : a.batch.max_pages - 1));
    }
  };
  grid_dependency_wait();

  const int index = rank * Shape::warps + warp;  // of the sequence's chunks
  look_up(index);                                // while its bounds are on their way: nothing may leave before it
  const Tile tile = tile_of_sequence(a.batch, a.tiles.group);
  const bool is_decoded = tile.rows > 0 && tile.rows <= paged_decode_rows;
  const ChunkRange all = chunks_of(tile, a.tiles.group, a.tiles.rule.window);
  const int count = is_decoded ? all.end - all.begin : 0, c = all.begin + index;
  if (all.begin > 0 && index < count) look_up(c);  // a window hides the sequence's beginning

  if (is_decoded)
    load_rows<Shape::threads>(memory.queries, tile.rows, a.tiles.head_dim, a.tiles.q_aligned, [&](int r) {
      return row_address(a.tiles.q, a.tiles.q_token, a.tiles.q_head, tile, a.tiles.group, r);
    });
  if (index < count) {
    const int left = tile.first_position + (tile.rows - 1) / a.tiles.group + 1 - c * chunk;
    const int rows = left < chunk ? left : chunk;
    LATHE_UNROLL
    for (int g = 0; g < PagedKeys<T>::chunk_groups; ++g)
      if (g * PagedKeys<T>::group_rows >= rows) pages[g] = 0;
#pragma unroll 1  // half the code; and both at once spilled at D = 256
    for (int side = 0; side < 2; ++side) {
      keys.copy_chunk(side == 0 ? keys.k : keys.v, side == 0 ? own.keys : own.values, pages, rows);
      cp_async_commit();
    }
  } else {
    cp_async_commit();
    cp_async_commit();
  }
  cp_async_wait<1>();
  __syncthreads();  // the queries are there for all, and each warp's keys for itself
  if (index < count) attend_chunk<Shape>(a.tiles, tile, c, memory.queries, own);

  sync_blocks<alone>();  // the chunks' results are there
  const int quads = (a.tiles.head_dim + 3) / 4, items = is_decoded ? tile.rows * quads : 0;
  for (int item = rank * Shape::threads + static_cast<int>(threadIdx.x); item < items;
       item += static_cast<int>(gridDim.x) * Shape::threads) {
    const auto result = [&](int i) {
      typename Shape::Chunk* const chunk_of = &memory.chunks[i % Shape::warps];
      if constexpr (alone)
        return chunk_of->result();
      else
        return in_block(i / Shape::warps, chunk_of)->result();
    };
    merge_chunks(a.tiles, tile, count, item / quads, item % quads * 4, result);
  }
  if constexpr (!alone) sync_blocks<alone>();  // no block leaves while another one reads its results
}

// ---- host ----

// Calls body.operator()<Shape>().
template <class Body>
void with_decode_shape(DType dtype, int64_t head_dim, const Body& body) {
  const auto with_head = [&]<class T>(T) {
    if (head_dim <= 64) return body.template operator()<DecodeShape<T, 64, 8>>();
    if (head_dim <= 128) return body.template operator()<DecodeShape<T, 128, 4>>();
    return body.template operator()<DecodeShape<T, 256, 2>>();
  };
  dtype == DType::bf16 ? with_head(bf16_t{}) : with_head(f16_t{});
}

template <class Shape>
int64_t blocks_of_cluster(const PagedAttentionCuda& args) {
  return (args.most_decode_chunks + Shape::warps - 1) / Shape::warps;
}

// One to a multiprocessor. On simt some, so that small cases take this way and the others.
int64_t blocks_at_once() { return LATHE_SIMT ? 24 : multiprocessors(); }

template <class Shape>
bool takes_clusters(const PagedAttentionCuda& args) {
  const int64_t blocks = blocks_of_cluster<Shape>(args);
  const Paged<typename Shape::T> a = paged_call<typename Shape::T>(args);
  return blocks <= most_blocks && args.decoded * args.kv_heads * blocks <= blocks_at_once() && a.aligned &&
         a.page_shift >= 4;
}

template <class Shape>
void decode(const PagedAttentionCuda& args) {
  const auto blocks = static_cast<unsigned>(blocks_of_cluster<Shape>(args));
  launch_dependent_clusters(
      "paged_decode_cluster",
      dim3(blocks, static_cast<unsigned>(args.kv_heads), static_cast<unsigned>(args.batch.sequences)), blocks,
      blocks == 1 ? paged_decode_cluster_kernel<Shape, true> : paged_decode_cluster_kernel<Shape, false>,
      paged_call<typename Shape::T>(args));
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
bool paged_decode_takes_clusters(const PagedAttentionCuda& args) {
  if (args.decoded == 0 || args.dtype != args.page_dtype || args.dtype == DType::f32 || !runs_sm_90a()) return false;
  bool takes = false;
  with_decode_shape(args.dtype, args.head_dim, [&]<class Shape>() { takes = takes_clusters<Shape>(args); });
  return takes;
}
template bool paged_decode_takes_clusters<DeviceKind::LATHE_CUDA_NAMESPACE>(const PagedAttentionCuda&);

template <DeviceKind>
void paged_decode_clusters(const PagedAttentionCuda& args) {
  with_decode_shape(args.dtype, args.head_dim, [&]<class Shape>() { decode<Shape>(args); });
}
template void paged_decode_clusters<DeviceKind::LATHE_CUDA_NAMESPACE>(const PagedAttentionCuda&);

}  // namespace lathe::kernels
