// What the kernels of one call of paged_attention share, but for prefill by wgmma.
#pragma once

#include "kernels/paged_attention/paged_keys.cuh"
#include "kernels/paged_attention/paged_tiles.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

template <class T>
struct Paged {
  flash::TileCall<T> tiles;
  SequenceRows k, v;
  int64_t k_head, v_head;  // strides, in bytes
  DType page_dtype;
  int page_shift, kv_heads;
  bool aligned;
  PagedSteps batch;
  int runs;
  int most_rows, most_chunks;  // decoded
  float* partials;
  int64_t partial_floats;  // of a chunk
};

template <class T>
__device__ __forceinline__ PagedKeys<T> keys_of_sequence(const Paged<T>& a) {
  const int64_t head = blockIdx.y, page_size = int64_t{1} << a.page_shift;
  PagedKeys<T> keys{.k = a.k,
                    .v = a.v,
                    .table = a.batch.block_table + blockIdx.z * a.batch.max_pages,
                    .dtype = a.page_dtype,
                    .page_shift = a.page_shift,
                    .scale_page = a.kv_heads * page_size,
                    .head_dim = a.tiles.head_dim,
                    .aligned = a.aligned};
  keys.k.data = static_cast<const char*>(a.k.data) + head * a.k_head;
  keys.v.data = static_cast<const char*>(a.v.data) + head * a.v_head;
  if (a.k.scales != nullptr) {
    keys.k.scales += head * page_size;
    keys.v.scales += head * page_size;
  }
  return keys;
}

template <class T>
Paged<T> paged_call(const PagedAttentionCuda& args) {
  const auto pages_aligned = [&](const PageSide& side) {
    const int64_t bytes = size_of(args.page_dtype);
    return (reinterpret_cast<uintptr_t>(side.data) | static_cast<uintptr_t>(side.page * bytes) |
            static_cast<uintptr_t>(side.head * bytes) | static_cast<uintptr_t>(side.token * bytes)) %
               16 ==
           0;
  };
  const auto sequence_rows = [](const PageSide& side) {
    return SequenceRows{side.data, side.page, side.token, side.scales};
  };
  Paged<T> a{};
  a.tiles = flash::tile_call<T>(args, args.lse, args.lse_head);
  a.k = sequence_rows(args.k), a.v = sequence_rows(args.v);
  a.k_head = args.k.head * size_of(args.page_dtype), a.v_head = args.v.head * size_of(args.page_dtype);
  a.page_dtype = args.page_dtype;
  a.page_shift = page_shift_of(args.page_size);
  a.kv_heads = static_cast<int>(args.kv_heads);
  a.aligned = pages_aligned(args.k) && pages_aligned(args.v);
  a.batch = args.batch;
  a.runs = static_cast<int>(args.runs);
  a.most_rows = static_cast<int>(args.most_decode_rows);
  a.most_chunks = static_cast<int>(args.most_decode_chunks);
  a.partials = args.partials;
  a.partial_floats = paged_partial_floats(args.most_decode_rows, args.head_dim);
  return a;
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
