// Attention of a tile of query rows by wgmma (sm_90a), for bf16 and f16 and D of 64, 96, 128 or 256: attend.cuh's
// attend_tile() with the same bits. A block has a tile of 128 rows: a producer brings chunks of keys and values by bulk
// copies, two warpgroups take 64 rows each (attend_consumer.cuh).
//
// The bits are those of attend.cuh: the products are (warpgroup.cuh), and what is done with them is the same code on
// registers that lie the same way. Past a sequence's end come any keys, which nobody sees, and zeros for values.
//
// How keys are stored is a loader's business, a copy of which each lane of the producing warp has:
//   int length;                                         // keys of the sequence
//   void find(int chunk);                               // where they lie: called before there is a stage for them
//   void keys(Panels& to, MBarrier& barrier) const;     // starts bulk copies of all rows of that chunk
//   void values(Panels& to, MBarrier& barrier) const;
#pragma once

#include <type_traits>

#include "core/dtype.h"
#include "kernels/attention/cuda/attend_consumer.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE::flash {

template <class T_, int head_size, int stages_ = 8>
struct WarpgroupAttention {
  using T = T_;
  static constexpr int D = head_size, rows = 128, warp_rows = 16, stages = stages_;
  static constexpr int output_columns = D <= 128 ? D : 64;  // of a chunk, at a time
  static constexpr int threads = 384, consuming_warps = 8;
  // Of a consumer's thread: D / 2 sums of the tile, as many of a chunk (D = 256: 32), 32 scores that become weights and
  // 32 on their way, 16 words of weights.
  using Registers = RegisterSplit<2, 24, 240>;

  struct Memory {
    HeadPanels<T, rows, D> queries;
    HeadPanels<T, chunk, D> at[stages];  // keys or values of a chunk, in turn
    PaddedTile<T, rows, D> out;
    SequencePipeline<stages> pipeline;
    // Here and not in registers, of which D = 128 has none to spare.
    Tile tile;
    WarpRows warps[consuming_warps];
  };
  using Resources = BlockResources<threads, 1, static_cast<int>(sizeof(Memory)), Cards::sm_90a>;

  // The ring's place of step n: keys of chunk n / 2, then its values.
  static __device__ __forceinline__ RingPlace<stages> place(int n) {
    const auto step = static_cast<unsigned>(n);  // as signed, a division by 8 is four instructions
    return {static_cast<int>(step % stages), step / stages & 1};
  }
};

// By all lanes of a warp.
template <class Shape, class Loader>
__device__ __forceinline__ void produce_chunks(typename Shape::Memory& memory, Loader& loader,
                                               const ChunkRange& chunks) {
  int n = 0;
  for (int c = chunks.begin; c < chunks.end; ++c) {
    loader.find(c);
    const int left = loader.length - c * chunk;
    LATHE_UNROLL
    for (const bool of_keys : {true, false}) {
      const RingPlace<Shape::stages> place = Shape::place(n++);
      auto& stage = memory.at[place.stage];
      const auto copy = [&](MBarrier& barrier) {
        of_keys ? loader.keys(stage, barrier) : loader.values(stage, barrier);
      };
      memory.pipeline.fill(place, stage.bytes, of_keys || left >= chunk, 0, copy, [&] { stage.clear_rows(left); });
    }
  }
}

template <class Shape, class Loader>
__device__ __forceinline__ void attend_tile_by_warpgroups(const TileCall<typename Shape::T>& call, const Tile& tile,
                                                          Loader loader) {
  auto& memory = *swizzled_shared<typename Shape::Memory>();
  if (threadIdx.x == 0) {
    memory.pipeline.init(Shape::consuming_warps);
    memory.tile = tile;
  }
  LATHE_UNROLL
  for (int p = 0; p < memory.queries.panels; ++p)
    load_rows<Shape::threads>(
        memory.queries.panel[p], tile.rows, Shape::D - 64 * p < 64 ? Shape::D - 64 * p : 64, call.q_aligned,
        [&](int r) { return row_address(call.q, call.q_token, call.q_head, tile, call.group, r) + 64 * p; });
  cp_async_commit();
  cp_async_wait<0>();
  fence_proxy_async();
  __syncthreads();  // the queries are there for wgmma, the mbarriers and the tile for all
  const ChunkRange chunks = chunks_of(tile, call.group, call.rule.window);
  const int warpgroup = __shfl_sync(full_warp, static_cast<int>(threadIdx.x) / 128, 0);
  if (warpgroup == 0) {
    Shape::Registers::give();
    if (threadIdx.x < 32) produce_chunks<Shape>(memory, loader, chunks);
  } else {
    Shape::Registers::take();
    consume_chunks<Shape>(call, memory, chunks, 64 * (warpgroup - 1));
  }
}

// ---- host ----

// All instances of a kernel: two dtypes times four head sizes. Calls body.operator()<Shape>().
template <class T, class Body>
void with_warpgroup_shape(int64_t head_dim, const Body& body) {
  switch (head_dim) {
    case 64: return body.template operator()<WarpgroupAttention<T, 64>>();
    case 96: return body.template operator()<WarpgroupAttention<T, 96>>();
    case 128: return body.template operator()<WarpgroupAttention<T, 128>>();
    default: return body.template operator()<WarpgroupAttention<T, 256, 3>>();
  }
}
template <class Body>
void with_warpgroup_shape(DType dtype, int64_t head_dim, const Body& body) {
  dtype == DType::bf16 ? with_warpgroup_shape<bf16_t>(head_dim, body) : with_warpgroup_shape<f16_t>(head_dim, body);
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE::flash
