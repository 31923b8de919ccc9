// attention_forward: a block for each tile of query rows and kv head (attend.cuh). On sm_90a forward_sm_90a.cu takes
// what it can.
#include "kernels/attention/cuda/arguments.h"

#include "kernels/attention/cuda/attend.cuh"
#include "kernels/attention/cuda/sequences.cuh"
#include "kernels/cuda/element.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

using namespace flash;

// Keys and values of one kv head, a sequence's tokens an even distance apart.
template <class T>
struct PackedKeys {
  const T* k;
  int64_t k_token;
  const T* v;
  int64_t v_token;
  int head_dim;
  bool aligned;

  template <int threads, class Tile>
  __device__ __forceinline__ void keys(Tile& tile, int first, int count) const {
    load_rows<threads>(tile, count, head_dim, aligned, [&](int j) { return k + int64_t{first + j} * k_token; });
  }
  template <int threads, class Tile>
  __device__ __forceinline__ void values(Tile& tile, int first, int count) const {
    load_rows<threads>(tile, count, head_dim, aligned, [&](int j) { return v + int64_t{first + j} * v_token; });
  }
};

template <class T>
struct Forward {
  TileCall<T> tiles;
  const T* k;
  int64_t k_token, k_head;
  const T* v;
  int64_t v_token, v_head;
  bool keys_aligned;
  int kv_heads;
};

template <class Shape, class Resources = typename Shape::Resources>
__global__ void __launch_bounds__(Resources::threads, Resources::blocks)
    attention_forward_kernel(Resources, Forward<typename Shape::T> a, Sequences sequences) {
  using T = typename Shape::T;
  const int block = static_cast<int>(blockIdx.x);
  // The last tiles of a sequence see the most keys and come first.
  const SequencePiece piece = find_piece(sequences, sequences.pieces() - 1 - block / a.kv_heads);
  Tile tile{.first_token = piece.start,
            .first_position = 0,
            .first_row = piece.index * Shape::rows,
            .rows = Shape::rows,
            .kv_head = block % a.kv_heads};
  const int left = piece.length * a.tiles.group - tile.first_row;
  if (left < tile.rows) tile.rows = left;
  attend_tile<Shape>(a.tiles, tile,
                     PackedKeys<T>{a.k + piece.start * a.k_token + tile.kv_head * a.k_head, a.k_token,
                                   a.v + piece.start * a.v_token + tile.kv_head * a.v_head, a.v_token, a.tiles.head_dim,
                                   a.keys_aligned});
}

template <class Shape>
void forward(const AttentionForwardCuda& args) {
  using T = typename Shape::T;
  Forward<T> a{};
  a.tiles = tile_call<T>(args, args.lse, args.lse_head);
  a.k = static_cast<const T*>(args.k.data), a.k_token = args.k.token, a.k_head = args.k.head;
  a.v = static_cast<const T*>(args.v.data), a.v_token = args.v.token, a.v_head = args.v.head;
  a.keys_aligned = heads_aligned<T>(args.k) && heads_aligned<T>(args.v);
  a.kv_heads = static_cast<int>(args.kv_heads);
  const auto tiles_of = [&](int length) { return (length * a.tiles.group + Shape::rows - 1) / Shape::rows; };
  for_each_launch(args.cu_seqlens, args.sequences, tiles_of, [&](const Sequences& sequences) {
    launch("attention_forward", dim3(static_cast<unsigned>(sequences.pieces() * a.kv_heads)),
           attention_forward_kernel<Shape>, a, sequences);
  });
}

// All instances: head size, warps, rows of each, blocks on a multiprocessor. Head sizes between them take the next
// one's, their rows filled up with zeros. What nvcc makes of them stands in kernels/cuda/resources.txt.
//
// On the tensor cores a warp takes 32 rows, which what it reads of keys and values serves: 16 rows would ask shared
// memory for all it gives. D = 256 has registers for 16 only.
template <class T>
void choose(const AttentionForwardCuda& args) {
  if (args.head_dim <= 64) return forward<AttentionShape<T, 64, 4, 32, 2>>(args);
  if (args.head_dim <= 96) return forward<AttentionShape<T, 96, 4, 32, 2>>(args);
  if (args.head_dim <= 128) return forward<AttentionShape<T, 128, 4, 32, 2>>(args);
  return forward<AttentionShape<T, 256, 4, 16, 1>>(args);
}
template <>
void choose<float>(const AttentionForwardCuda& args) {
  if (args.head_dim <= 64) return forward<AttentionShape<float, 64, 4, 16, 2>>(args);
  if (args.head_dim <= 128) return forward<AttentionShape<float, 128, 2, 16, 1>>(args);
  // Values beside the keys, or more warps' queries, do not fit.
  return forward<AttentionShape<float, 256, 1, 16, 1, 1>>(args);
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
void attention_forward_tiles(const AttentionForwardCuda& args) {
  if (attention_takes_warpgroups<DeviceKind::LATHE_CUDA_NAMESPACE>(args))
    return attention_forward_warpgroups<DeviceKind::LATHE_CUDA_NAMESPACE>(args);
  with_element(args.dtype, [&]<class T>(T) { choose<T>(args); });
}
template void attention_forward_tiles<DeviceKind::LATHE_CUDA_NAMESPACE>(const AttentionForwardCuda&);

}  // namespace lathe::kernels
