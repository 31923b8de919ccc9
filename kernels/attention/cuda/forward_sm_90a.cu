// attention_forward by wgmma (sm_90a), for bf16 and f16 and D of 64, 96, 128 or 256. A block has a tile of 128 query
// rows: a producer brings chunks of keys and values by bulk copies, two warpgroups take 64 rows each. While a chunk's
// weights meet its values, the next chunk's scores are computed and become weights; D = 256 has no registers for that,
// and brings a chunk's output to what the tile has of it 64 columns at a time.
//
// The bits are those of attend.cuh: the products are (warpgroup.cuh), and what is done with them is the same code on
// registers that lie the same way. Past a sequence's end come the keys of the next one, which nobody sees, and zeros for
// values.
#include <type_traits>

#include "kernels/attention/cuda/arguments.h"
#include "kernels/attention/cuda/attend.cuh"
#include "kernels/attention/cuda/sequences.cuh"
#include "kernels/attention/cuda/warpgroup.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

using namespace flash;

template <class T_, int head_size, int stages_ = 8>
struct WarpgroupAttention {
  using T = T_;
  static constexpr int D = head_size, rows = 128, warp_rows = 16, stages = stages_;
  static constexpr int output_columns = D <= 128 ? D : 64;  // of a chunk, at a time
  static constexpr int threads = 384, consuming_warps = 8;
  // Of a consumer's thread: D / 2 sums of the tile, as many of a chunk (D = 256: 32) and some on their way between the
  // two, 32 scores, 16 or 32 words of weights.
  static constexpr int producer_registers = 24, consumer_registers = 240;
  static_assert(128 * (producer_registers + 2 * consumer_registers) <= 65536);

  struct Memory {
    HeadPanels<T, rows, D> queries;
    HeadPanels<T, chunk, D> at[stages];  // keys or values of a chunk, in turn
    PaddedTile<T, rows, D> out;
    SequencePipeline<stages> pipeline;
  };
  using Resources = BlockResources<threads, 1, static_cast<int>(sizeof(Memory)), Cards::sm_90a>;

  // The ring's place of step n: keys of chunk n / 2, then its values.
  static __device__ __forceinline__ RingPlace<stages> place(int n) {
    return {n % stages, static_cast<unsigned>(n / stages & 1)};
  }
};

template <class T>
struct Keys {
  TensorMap k, v;      // [tokens, everything between a token's first head and its last]
  int k_head, v_head;  // elements from head to head
};

// By all lanes of a warp, for a tile of a sequence of `length` tokens.
template <class Shape>
__device__ __forceinline__ void produce(typename Shape::Memory& memory, const Keys<typename Shape::T>& keys,
                                        const Tile& tile, int length, const ChunkRange& chunks) {
  for (int n = 0; n < 2 * (chunks.end - chunks.begin); ++n) {
    const RingPlace<Shape::stages> place = Shape::place(n);
    const bool of_keys = n % 2 == 0;
    const int first = (chunks.begin + n / 2) * chunk, token = static_cast<int>(tile.first_token) + first;
    auto& stage = memory.at[place.stage];
    const auto copy = [&](MBarrier& barrier) {
      stage.copy(of_keys ? keys.k : keys.v, token, tile.kv_head * (of_keys ? keys.k_head : keys.v_head), barrier);
    };
    memory.pipeline.fill(place, stage.bytes, of_keys || first + chunk <= length, 0, copy,
                         [&] { stage.clear_rows(length - first); });
  }
}

// Of a chunk, for a warp's rows. The weights stay f32 while wgmma is under way: ptxas runs one after the other where
// registers of A are written meanwhile.
struct ChunkWeights {
  Accumulator<16, chunk> weights;
  RowValues<16> maximum, sum;
};
template <class T>
__device__ __forceinline__ void find_weights(ChunkWeights& found, const float (&products)[chunk / 2],
                                             const WarpRows& rows, int chunk_index, const ScoreRule& rule) {
  for_each(found.weights, [&](int, int j, int e, float& score) { score = products[4 * j + e]; });
  chunk_scores<T>(found.weights, found.maximum, rows, chunk_index, rule);
  chunk_weights(found.weights, found.maximum, found.sum);
}

// What a warp has of its rows after some chunks.
template <int D>
struct RowsState {
  Accumulator<16, D> out;
  RowValues<16> maximum, sum;

  __device__ __forceinline__ RowsState() {
    for_each_row(maximum, [&](int i, int h, float& row) {
      row = nothing;
      sum.at[i][h] = 0.0f;
    });
  }
  using Factors = RowValues<16, MergeFactors>;
  // Merges a chunk's maximum and sum; its output, of columns from `first` on, is to be merged with these factors.
  __device__ __forceinline__ Factors merge(const RowValues<16>& chunk_maximum, const RowValues<16>& chunk_sum) {
    Factors factors;
    for_each_row(factors, [&](int i, int h, MergeFactors& of_row) {
      of_row = merge_factors(maximum.at[i][h], sum.at[i][h], chunk_maximum.at[i][h], chunk_sum.at[i][h]);
    });
    return factors;
  }
  template <int sums>
  __device__ __forceinline__ void merge(const float (&chunk_out)[sums], int first, const Factors& factors) {
    LATHE_UNROLL
    for (int i = 0; i < sums; ++i) {
      float& element = out.at[0][first / 8 + i / 4][i % 4];
      element = merge_output(element, chunk_out[i], factors.at[0][i % 4 / 2]);
    }
  }
};

// A chunk's output and its merging, some columns after the others. With two of these under way together the merging
// had too few registers, and spilled 26.
template <class Shape>
__device__ __forceinline__ void merge_by_columns(RowsState<Shape::D>& state, const RowValues<16>& maximum,
                                                 const RowValues<16>& sum,
                                                 const LeftOperand<typename Shape::T, 16, chunk>& weights,
                                                 const HeadPanels<typename Shape::T, chunk, Shape::D>& values) {
  constexpr int columns = Shape::output_columns;
  const auto factors = state.merge(maximum, sum);
  LATHE_UNROLL
  for (int first = 0; first < Shape::D; first += columns) {
    float o[columns / 2];
    wgmma_fence();
    queue_weighted<Onto::nothing>(o, weights, values, first / 64);
    wgmma_wait<0>(o);
    state.merge(o, first, factors);
  }
  done_with(weights);
}

// A warpgroup whose rows of the tile begin at `row`.
template <class Shape>
__device__ __forceinline__ void consume(const TileCall<typename Shape::T>& call, typename Shape::Memory& memory,
                                        const Tile& tile, const ChunkRange& chunks, int row) {
  using T = typename Shape::T;
  const auto wait = [&](int n) -> const auto& {
    memory.pipeline.wait_until_full(Shape::place(n));
    return memory.at[Shape::place(n).stage];
  };
  const auto release = [&](int n) { memory.pipeline.release(Shape::place(n).stage); };
  const auto leave_out = [&](int begin, int end) {  // chunks in which none of the warpgroup's rows sees anything
    for (int n = 2 * (begin - chunks.begin); n < 2 * (end - chunks.begin); ++n) {
      wait(n);
      release(n);
    }
  };
  Tile own = tile;  // the warpgroup's rows
  own.first_row += row;
  own.rows = tile.rows - row < 64 ? tile.rows - row : 64;
  if (own.rows <= 0) return leave_out(chunks.begin, chunks.end);
  const ChunkRange seen = chunks_of(own, call.group, call.rule.window);
  leave_out(chunks.begin, seen.begin);

  const int first = row + static_cast<int>(threadIdx.x) % 128 / 32 * Shape::warp_rows;
  const WarpRows rows = warp_rows(tile, call.group, first, Shape::warp_rows);
  RowsState<Shape::D> state;
  int n = 2 * (seen.begin - chunks.begin);  // the step of the keys whose weights come next
  ChunkWeights of_chunk;
  const auto find_first = [&](int c, int step) {  // with nothing else under way
    const auto& keys = wait(step);
    float s[chunk / 2];
    wgmma_fence();
    queue_transposed(s, memory.queries, row, keys);
    wgmma_wait<0>(s);
    release(step);
    find_weights<T>(of_chunk, s, rows, c, call.rule);
  };
  find_first(seen.begin, n);
  for (int c = seen.begin; c < seen.end; ++c, n += 2) {
    const bool another = c + 1 < seen.end;
    const LeftOperand<T, 16, chunk> weights(of_chunk.weights, nullptr);
    const RowValues<16> maximum = of_chunk.maximum, sum = of_chunk.sum;
    const auto& values = wait(n + 1);
    if constexpr (Shape::output_columns < Shape::D) {
      merge_by_columns<Shape>(state, maximum, sum, weights, values);
      release(n + 1);
      if (another) find_first(c + 1, n + 2);
    } else {
      float s[chunk / 2], o[Shape::D / 2];
      if (another) {
        const auto& keys = wait(n + 2);
        wgmma_fence();
        queue_transposed(s, memory.queries, row, keys);
        queue_weighted<Onto::nothing>(o, weights, values);
        wgmma_wait<1>(s);
        release(n + 2);
        find_weights<T>(of_chunk, s, rows, c + 1, call.rule);
      } else {
        wgmma_fence();
        queue_weighted<Onto::nothing>(o, weights, values);
      }
      wgmma_wait<0>(o);
      done_with(weights);
      release(n + 1);
      state.merge(o, 0, state.merge(maximum, sum));
    }
  }
  leave_out(seen.end, chunks.end);
  finish_rows(call, tile, first, memory.out, state.out, state.maximum, state.sum);
}

template <class Shape, class Resources = typename Shape::Resources>
__global__ void __launch_bounds__(Resources::threads, Resources::blocks)
    attention_forward_warpgroup_kernel(Resources, const __grid_constant__ Keys<typename Shape::T> keys,
                                       TileCall<typename Shape::T> call, int kv_heads, Sequences sequences) {
  auto& memory = *swizzled_shared<typename Shape::Memory>();
  if (threadIdx.x == 0) memory.pipeline.init(Shape::consuming_warps);
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
  LATHE_UNROLL
  for (int p = 0; p < memory.queries.panels; ++p)
    load_rows<Shape::threads>(
        memory.queries.panel[p], tile.rows, Shape::D - 64 * p < 64 ? Shape::D - 64 * p : 64, call.q_aligned,
        [&](int r) { return row_address(call.q, call.q_token, call.q_head, tile, call.group, r) + 64 * p; });
  cp_async_commit();
  cp_async_wait<0>();
  fence_proxy_async();
  __syncthreads();  // the queries are there for wgmma, the mbarriers for all
  const ChunkRange chunks = chunks_of(tile, call.group, call.rule.window);
  const int warpgroup = __shfl_sync(full_warp, static_cast<int>(threadIdx.x) / 128, 0);
  if (warpgroup == 0) {
    give_registers<Shape::producer_registers>();
    if (threadIdx.x < 32) produce<Shape>(memory, keys, tile, piece.length, chunks);
  } else {
    take_registers<Shape::consumer_registers>();
    consume<Shape>(call, memory, tile, chunks, 64 * (warpgroup - 1));
  }
}

// ---- host ----

template <class Shape>
void forward(const AttentionForwardCuda& args) {
  using T = typename Shape::T;
  const auto map = [&](const HeadRows& rows) {
    return make_tensor_map(head_map_args(rows, args.cu_seqlens[args.sequences], args.kv_heads, args.head_dim));
  };
  const Keys<T> keys{map(args.k), map(args.v), static_cast<int>(args.k.head), static_cast<int>(args.v.head)};
  const TileCall<T> call = tile_call<T>(args, args.lse, args.lse_head);
  const int kv_heads = static_cast<int>(args.kv_heads);
  const auto tiles_of = [&](int length) { return (length * call.group + Shape::rows - 1) / Shape::rows; };
  for_each_launch(args.cu_seqlens, args.sequences, tiles_of, [&](const Sequences& sequences) {
    launch("attention_forward_warpgroup", dim3(static_cast<unsigned>(sequences.pieces() * kv_heads)),
           attention_forward_warpgroup_kernel<Shape>, keys, call, kv_heads, sequences);
  });
}

// All instances: two dtypes times four head sizes.
template <class T>
void choose(const AttentionForwardCuda& args) {
  switch (args.head_dim) {
    case 64: return forward<WarpgroupAttention<T, 64>>(args);
    case 96: return forward<WarpgroupAttention<T, 96>>(args);
    case 128: return forward<WarpgroupAttention<T, 128>>(args);
    default: return forward<WarpgroupAttention<T, 256, 3>>(args);
  }
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
bool attention_takes_warpgroups(const AttentionForwardCuda& args) {
  const auto served = [&](const HeadRows& rows) {
    return flash::bulk_copies_serve(rows, args.cu_seqlens[args.sequences], args.kv_heads, args.head_dim);
  };
  const bool sized = args.head_dim == 64 || args.head_dim == 96 || args.head_dim == 128 || args.head_dim == 256;
  return args.dtype != DType::f32 && sized && runs_sm_90a() && served(args.k) && served(args.v);
}
template bool attention_takes_warpgroups<DeviceKind::LATHE_CUDA_NAMESPACE>(const AttentionForwardCuda&);

template <DeviceKind>
void attention_forward_warpgroups(const AttentionForwardCuda& args) {
  args.dtype == DType::bf16 ? choose<bf16_t>(args) : choose<f16_t>(args);
}
template void attention_forward_warpgroups<DeviceKind::LATHE_CUDA_NAMESPACE>(const AttentionForwardCuda&);

}  // namespace lathe::kernels
