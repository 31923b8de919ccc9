// paged_attention over attention's own tiles (kernels/attention/cuda/attend.cuh): prefill takes them whole, on sm_90a
// those of prefill_sm_90a.cu where it can. A decoded sequence is one tile of at most 16 rows under all of its keys, for
// one warp: enough of them keep memory busy. Where they are too few, each is split into runs of chunks; every chunk's
// result is put away, and merged in order by the arithmetic that merges them within a tile. So the split shows in no
// bit, and is free to follow the number of sequences.
#include "kernels/paged_attention/cuda.h"

#include "kernels/attention/cuda/attend.cuh"
#include "kernels/cuda/dependent_launch.h"
#include "kernels/cuda/element.h"
#include "kernels/cuda/ptx/grid_dependency.h"
#include "kernels/paged_attention/paged_keys.cuh"
#include "kernels/paged_attention/paged_tiles.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

using namespace flash;

template <class T>
struct Paged {
  TileCall<T> tiles;
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

// Results of one chunk: outputs [rows][width], maxima [rows], sums [rows].
struct Partial {
  float* out;
  int width;
  float *maximum, *sum;
};

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
  const int count = all.end - all.begin, lane = static_cast<int>(threadIdx.x);
  const ChunkRange own{all.begin + count * run / runs, all.begin + count * (run + 1) / runs};
  const auto put_away = [&](int c, const auto& maximum, const auto& sum, const auto& weights, const auto& values) {
    const Partial partial = partial_of(a, c - all.begin);
    LATHE_UNROLL
    for (int h = 0; h < 2; ++h) {
      const int row = lane / 4 + 8 * h;
      if (lane % 4 != 0 || row >= tile.rows) continue;
      partial.maximum[row] = maximum.at[0][h];
      partial.sum[row] = sum.at[0][h];
    }
#pragma unroll 1
    for (int j = 0; 8 * j < a.tiles.head_dim; j += 2) {
      const auto out = chunk_output<Shape>(weights, values, j);
      LATHE_UNROLL
      for (int e = 0; e < 4; ++e) {
        const int row = lane / 4 + e / 2 * 8;
        if (row < tile.rows)
          store_vector<float2>(partial.out + row * partial.width + (j + e % 2) * 8 + lane % 4 * 2,
                               make_float2(out.at[0][e % 2][e / 2 * 2], out.at[0][e % 2][e / 2 * 2 + 1]));
      }
    }
  };
  attend_chunks<Shape>(a.tiles, tile, own, keys_of_sequence(a), put_away);
}

constexpr int merge_threads = 128;

// A thread for four elements of a row. The loads of some chunks are under way together; the merge waits for each in
// turn.
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

  constexpr int ahead = 8;
  float maximum = nothing, sum = 0.0f;
  float4 out{0.0f, 0.0f, 0.0f, 0.0f};
  const int count = all.end - all.begin;
  for (int first = 0; first < count; first += ahead) {
    float maxima[ahead], sums[ahead];
    float4 outs[ahead];
    LATHE_UNROLL
    for (int i = 0; i < ahead; ++i) {
      const Partial partial = partial_of(a, first + i < count ? first + i : count - 1);
      maxima[i] = partial.maximum[row];
      sums[i] = partial.sum[row];
      outs[i] = load_vector<float4>(partial.out + row * partial.width + column);
    }
    LATHE_UNROLL
    for (int i = 0; i < ahead; ++i) {
      if (first + i >= count) continue;
      const MergeFactors factors = merge_factors(maximum, sum, maxima[i], sums[i]);
      out.x = merge_output(out.x, outs[i].x, factors);
      out.y = merge_output(out.y, outs[i].y, factors);
      out.z = merge_output(out.z, outs[i].z, factors);
      out.w = merge_output(out.w, outs[i].w, factors);
    }
  }
  if (column == 0) write_lse(a.tiles, tile, row, maximum, sum);
  const float factor = final_factor(sum);
  T* target = row_address(a.tiles.out, a.tiles.out_token, a.tiles.out_head, tile, a.tiles.group, row) + column;
  const float elements[4] = {out.x, out.y, out.z, out.w};
  LATHE_UNROLL
  for (int j = 0; j < 4; ++j)
    if (column + j < a.tiles.head_dim) target[j] = from_float<T>(fmaf(elements[j], factor, 0.0f));
}

template <class Prefill, class Decode>
void attend(const PagedAttentionCuda& args) {
  using T = typename Prefill::T;
  static_assert(Decode::rows == paged_decode_rows);
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
  a.tiles = tile_call<T>(args, args.lse, args.lse_head);
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
