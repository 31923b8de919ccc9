// attention_forward by wgmma (sm_90a): a block for each tile of query rows and kv head (attend_warpgroups.cuh).
#include "kernels/attention/cuda/arguments.h"
#include "kernels/attention/cuda/attend_warpgroups.cuh"
#include "kernels/attention/cuda/sequences.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

using namespace flash;

struct Keys {
  TensorMap k, v;      // [tokens, everything between a token's first head and its last]
  int k_head, v_head;  // elements from head to head
};

// Those of a sequence's tokens from `start` on, and a kv head.
struct PackedKeys {
  const Keys& all;
  int start, length, kv_head;
  int first = 0;  // token of the chunk

  __device__ __forceinline__ void find(int chunk_index) { first = start + chunk_index * chunk; }
  template <class Panels>
  __device__ __forceinline__ void keys(Panels& to, MBarrier& barrier) const {
    if (threadIdx.x == 0) to.copy(all.k, first, kv_head * all.k_head, barrier);
  }
  template <class Panels>
  __device__ __forceinline__ void values(Panels& to, MBarrier& barrier) const {
    if (threadIdx.x == 0) to.copy(all.v, first, kv_head * all.v_head, barrier);
  }
};

template <class Shape, class Resources = typename Shape::Resources>
__global__ void __launch_bounds__(Resources::threads, Resources::blocks)
    attention_forward_warpgroup_kernel(Resources, const __grid_constant__ Keys keys, TileCall<typename Shape::T> call,
                                       int kv_heads, Sequences sequences) {
  const int block = static_cast<int>(blockIdx.x);
  // The last tiles of a sequence see the most keys and come first.
  const SequencePiece piece = find_piece(sequences, sequences.pieces() - 1 - block / kv_heads);
  Tile tile{.first_token = piece.start,
            .first_position = 0,
            .first_row = piece.index * Shape::rows,
            .rows = Shape::rows,
            .kv_head = block % kv_heads};
  const int left = piece.length * call.group - tile.first_row;
  if (left < tile.rows) tile.rows = left;
  attend_tile_by_warpgroups<Shape>(call, tile, PackedKeys{keys, piece.start, piece.length, tile.kv_head});
}

template <class Shape>
void forward(const AttentionForwardCuda& args) {
  const auto map = [&](const HeadRows& rows) {
    return make_tensor_map(head_map_args(rows, args.cu_seqlens[args.sequences], args.kv_heads, args.head_dim));
  };
  const Keys keys{map(args.k), map(args.v), static_cast<int>(args.k.head), static_cast<int>(args.v.head)};
  const auto call = tile_call<typename Shape::T>(args, args.lse, args.lse_head);
  const int kv_heads = static_cast<int>(args.kv_heads);
  const auto tiles_of = [&](int length) { return (length * call.group + Shape::rows - 1) / Shape::rows; };
  for_each_launch(args.cu_seqlens, args.sequences, tiles_of, [&](const Sequences& sequences) {
    launch("attention_forward_warpgroup", dim3(static_cast<unsigned>(sequences.pieces() * kv_heads)),
           attention_forward_warpgroup_kernel<Shape>, keys, call, kv_heads, sequences);
  });
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
bool attention_takes_warpgroups(const AttentionForwardCuda& args) {
  const auto served = [&](const HeadRows& rows) {
    return flash::bulk_copies_serve(rows, args.cu_seqlens[args.sequences], args.kv_heads, args.head_dim);
  };
  return args.dtype != DType::f32 && flash::warpgroups_take_head(args.head_dim) && runs_sm_90a() && served(args.k) &&
         served(args.v);
}
template bool attention_takes_warpgroups<DeviceKind::LATHE_CUDA_NAMESPACE>(const AttentionForwardCuda&);

template <DeviceKind>
void attention_forward_warpgroups(const AttentionForwardCuda& args) {
  flash::with_warpgroup_shape(args.dtype, args.head_dim, [&]<class Shape>() { forward<Shape>(args); });
}
template void attention_forward_warpgroups<DeviceKind::LATHE_CUDA_NAMESPACE>(const AttentionForwardCuda&);

}  // namespace lathe::kernels
