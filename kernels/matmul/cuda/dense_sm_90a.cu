// Products of bf16 and f16 matrices by wgmma (sm_90a). A block is a producer, one thread of which keeps bulk copies of
// stages under way, and one or two consuming warpgroups, which multiply 64 rows each. Blocks stay, as many as there is
// room for, and take tile after tile: the next tile's first stages come while this one's sums are written.
//
// Pairs of blocks (clusters of two, each of which copied half of the right operand's rows to both) asked the
// second-level cache for a third less, and lost: 4096 rows on an H200, beside cuBLASLt, 0.98 to 1.06 of its speed where
// blocks by themselves had 0.99 to 1.15; of a gradient of weights 0.90 and 0.95.
//
// An element has the bits that mma.sync gives it (dense.cu): both add 16 products and the sum so far by one formula
// (kernels/simt/tensor_sum.h), and both walk along k by sixteens to the end of the last stage of 64. Were that not so
// on a card (device_tests holds both against the formula), takes_warpgroups() returning false would be all there is to
// change here.
#include "kernels/cuda/tile/bulk_operand.cuh"
#include "kernels/cuda/tile/bulk_pipeline.cuh"
#include "kernels/matmul/cuda/column_statistics.h"
#include "kernels/matmul/cuda/few_rows.h"
#include "kernels/matmul/cuda/mainloop.cuh"
#include "kernels/matmul/cuda/product.h"
#include "kernels/matmul/cuda/warpgroup_epilogue.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

static_assert(bulk_k == block_k, "zeros past the end of k are added as often as dense.cu does");

template <int m_, int n_, int stages_, int blocks>
struct WarpgroupShape {
  static constexpr int m = m_, n = n_, stages = stages_;
  static constexpr int consumers = m / 64, consuming_warps = 4 * consumers;
  static constexpr int shared_bytes =
      stages * (m + n) * bulk_k * 2 + consuming_warps * static_cast<int>(sizeof(SumsTile)) + 1024;
  using Resources = BlockResources<128 * (1 + consumers), blocks, shared_bytes, Cards::sm_90a>;
};
// 48 KiB a stage. A stage takes the tensor cores 1024 cycles, in which 48 bytes a cycle come from the second-level
// cache; 128 columns want 64.
using Wide = WarpgroupShape<128, 256, 4, 1>;
// For products that have too few wide tiles for the multiprocessors.
using Square = WarpgroupShape<128, 128, 6, 1>;
// For those that have too few of these, as prompts of 512 tokens.
using Medium = WarpgroupShape<64, 128, 4, 2>;
// For LoRA's products, of which one side has sixteen columns or so: zeros come for the rest without being read, and the
// time is that of streaming the other side, 96 KiB of it under way in a block.
using Narrow = WarpgroupShape<64, 64, 6, 2>;

// Of a thread: a consumer's n / 2 sums and what surrounds them, in place of what the producer does not need. Blocks of
// one consuming warpgroup have enough as they are.
template <class Shape>
using Registers = RegisterSplit<Shape::consumers, 40, 232>;

constexpr Major left_major(ProductLayout layout) {
  return layout == ProductLayout::columns_plain ? Major::mn : Major::k;
}
constexpr Major right_major(ProductLayout layout) { return layout == ProductLayout::rows_rows ? Major::k : Major::mn; }

// A block's shared memory.
template <class Shape_, ProductLayout layout_, class T_>
struct Stages {
  using Shape = Shape_;
  using T = T_;
  static constexpr ProductLayout layout = layout_;
  BulkOperand<T, Shape::m, left_major(layout)> left[Shape::stages];
  BulkOperand<T, Shape::n, right_major(layout)> right[Shape::stages];
  SumsTile sums[Shape::consuming_warps];
  BulkPipeline<Shape::stages> pipeline;
};

// Pairs of operands, `steps` stages along k each. A tile's sum runs through all of them; in columns_plain, where they
// are sequences, each has a sum of its own, which is added to what lies in out.
template <int most_>
struct Segments {
  static constexpr int most = most_;
  TensorMap left[most], right[most];
  int steps[most];
  int count;
};
constexpr int most_segments(ProductLayout layout) {
  return layout == ProductLayout::columns_plain ? 12 : 2;  // maps of 128 bytes in 4 KiB of arguments
}
template <ProductLayout layout>
using SegmentsOf = Segments<most_segments(layout)>;

// Calls body(first_row, first_column) for each tile of this block.
template <class Shape, class Body>
__device__ __forceinline__ void for_each_tile(int64_t m, int64_t n, Body body) {
  const unsigned tiles = static_cast<unsigned>((m + Shape::m - 1) / Shape::m * ((n + Shape::n - 1) / Shape::n));
  for (unsigned tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    int64_t first_row, first_column;
    find_tile<Shape>(tile, m, n, first_row, first_column);
    body(static_cast<int>(first_row), static_cast<int>(first_column));
  }
}

template <class Stages, class Segments>
__device__ __forceinline__ void produce(Stages& shared, const Segments& segments, int64_t m, int64_t n) {
  using Shape = typename Stages::Shape;
  RingPlace<Shape::stages> place;
  for_each_tile<Shape>(m, n, [&](int first_row, int first_column) {
    for (int s = 0; s < segments.count; ++s) {
      for (int step = 0; step < segments.steps[s]; ++step, place.advance()) {
        auto& left = shared.left[place.stage];
        auto& right = shared.right[place.stage];
        MBarrier& full = shared.pipeline.full[place.stage];
        shared.pipeline.begin_fill(place, left.bytes + right.bytes);
        left.copy(segments.left[s], first_row, step * bulk_k, full);
        right.copy(segments.right[s], first_column, step * bulk_k, full);
      }
    }
  });
}

// sums = the product of `steps` stages, by a warpgroup whose rows of the tile begin at `row`. The stages are released.
template <class Stages, int count>
__device__ __forceinline__ void multiply_stages(float (&sums)[count], Stages& shared, int row, int steps,
                                                RingPlace<Stages::Shape::stages>& place) {
  int before = 0;
  for (int step = 0; step < steps; ++step, place.advance()) {
    shared.pipeline.wait_until_full(place);
    const auto left = shared.left[place.stage].from_row(row);
    const auto right = shared.right[place.stage].from_row(0);
    wgmma_fence();
    LATHE_UNROLL
    for (int k = 0; k < bulk_k / 16; ++k) wgmma(sums, left.next_k16(k), right.next_k16(k), step > 0 || k > 0);
    wgmma_commit();
    wgmma_wait<1>();  // the tensor cores have this stage to do while the one before is given back
    if (step > 0) shared.pipeline.release(before);
    before = place.stage;
  }
  wgmma_wait<0>(sums);
  shared.pipeline.release(before);
}

template <class Stages, class Segments>
__device__ __forceinline__ void consume(Stages& shared, const Segments& segments, const Epilogue<typename Stages::T>& e,
                                        const ColumnStatistics& statistics, int group) {
  using Shape = typename Stages::Shape;
  constexpr bool sum_each = Stages::layout == ProductLayout::columns_plain;
  const int warp = static_cast<int>(threadIdx.x) % 128 / 32, row = 64 * group;
  const bool rounds = !sum_each && e.bias.data == nullptr && e.residual.data == nullptr && e.out.dtype != DType::f32 &&
                      reinterpret_cast<uintptr_t>(e.out.data) % 16 == 0 && e.out.stride % 8 == 0;
  const bool pairs = takes_pairs(e);
  int steps_of_all = 0;
  for (int s = 0; s < segments.count; ++s) steps_of_all += segments.steps[s];
  RingPlace<Shape::stages> place;
  for_each_tile<Shape>(e.m, e.n, [&](int first_row, int first_column) {
    for (int s = 0; s < (sum_each ? segments.count : 1); ++s) {
      float sums[Shape::n / 2];
      multiply_stages(sums, shared, row, sum_each ? segments.steps[s] : steps_of_all, place);
      SumsTile& tile = shared.sums[4 * group + warp];
      if (Stages::layout == ProductLayout::rows_rows && statistics.pairs != nullptr) {
        store_with_statistics(e, statistics, sums, first_row + row + 16 * warp, first_column);
      } else if (pairs) {
        store_pairs(e, sums, first_row + row + 16 * warp, first_column);
      } else if (rounds && first_column + Shape::n <= e.n) {
        round_rows(e, sums, tile, first_row + row + 16 * warp, first_column);
      } else {
        finish_rows(e, sums, tile, first_row + row + 16 * warp, first_column);
      }
    }
  });
}

template <class Shape, ProductLayout layout, class T, class Resources = typename Shape::Resources>
__global__ void __launch_bounds__(Resources::threads, Resources::blocks)
    warpgroup_product_kernel(Resources, const __grid_constant__ SegmentsOf<layout> segments, Epilogue<T> epilogue,
                             ColumnStatistics statistics) {
  using Shared = Stages<Shape, layout, T>;
  static_assert(sizeof(Shared) <= Resources::shared_bytes);
  Shared& shared = *swizzled_shared<Shared>();
  if (threadIdx.x == 0) shared.pipeline.init(Shape::consuming_warps);
  __syncthreads();  // the mbarriers are there for all
  // From a lane, so that the compiler knows that a warp is of one mind: descriptors live in registers of the warp.
  const int warpgroup = __shfl_sync(full_warp, static_cast<int>(threadIdx.x) / 128, 0);
  if (warpgroup == 0) {
    if constexpr (Shape::consumers > 1) Registers<Shape>::give();
    if (threadIdx.x == 0) produce(shared, segments, epilogue.m, epilogue.n);
  } else {
    if constexpr (Shape::consumers > 1) Registers<Shape>::take();
    consume(shared, segments, epilogue, statistics, warpgroup - 1);
  }
}

// ---- host ----

// The operands of one pair, as bulk copies take them.
template <class Shape, ProductLayout layout, class T>
struct PairMaps {
  TensorMapArgs left, right;
};
template <class Shape, ProductLayout layout, class T>
PairMaps<Shape, layout, T> maps_of(const ProductArgs& args, const ProductMatrix& left, const ProductMatrix& right,
                                   int64_t first_k, int64_t k) {
  // Where k runs over the rows of a matrix, a pair may begin further down.
  const auto data = [&](const ProductMatrix& matrix, Major major) {
    return static_cast<const T*>(matrix.data) + (major == Major::k ? 0 : first_k * matrix.stride);
  };
  using Shared = Stages<Shape, layout, T>;
  using Left = std::remove_extent_t<decltype(Shared::left)>;
  using Right = std::remove_extent_t<decltype(Shared::right)>;
  return {Left::map_args(data(left, Left::major), left.stride, args.m, k),
          Right::map_args(data(right, Right::major), right.stride, args.n, k)};
}

template <class Shape, ProductLayout layout, class T>
bool maps_serve(const ProductArgs& args) {
  const auto serves = [&](const ProductMatrix& left, const ProductMatrix& right, int64_t k) {
    const auto maps = maps_of<Shape, layout, T>(args, left, right, 0, k);
    return why_no_tensor_map(maps.left)[0] == 0 && why_no_tensor_map(maps.right)[0] == 0;
  };
  return serves(args.left, args.right, args.k) && (args.k2 == 0 || serves(args.left2, args.right2, args.k2));
}

template <class Shape, ProductLayout layout, class T>
void start(const ProductArgs& args, const ColumnStatistics& statistics) {
  SegmentsOf<layout> segments;
  segments.count = 0;
  const auto add = [&](const ProductMatrix& left, const ProductMatrix& right, int64_t first_k, int64_t k) {
    const auto maps = maps_of<Shape, layout, T>(args, left, right, first_k, k);
    segments.left[segments.count] = make_tensor_map(maps.left);
    segments.right[segments.count] = make_tensor_map(maps.right);
    segments.steps[segments.count++] = stages_along(k);
  };
  const int64_t tiles = count_tiles<Shape>(args.m, args.n);
  const int64_t places = Shape::Resources::blocks * multiprocessors();
  const auto blocks = static_cast<unsigned>(tiles < places ? tiles : places);
  const auto launch_segments = [&] {
    launch("warpgroup_product", dim3(blocks), warpgroup_product_kernel<Shape, layout, T>, segments,
           epilogue_of<T>(args), statistics);
    segments.count = 0;
  };
  if constexpr (layout == ProductLayout::columns_plain) {
    for (int64_t s = 0; s < args.sequences; ++s) {
      const int64_t begin = args.cu_seqlens[s], tokens = args.cu_seqlens[s + 1] - begin;
      if (tokens > 0) add(args.left, args.right, begin, tokens);
      if (segments.count == segments.most) launch_segments();
    }
    if (segments.count > 0) launch_segments();
  } else {
    add(args.left, args.right, 0, args.k);
    if (args.k2 > 0) add(args.left2, args.right2, 0, args.k2);
    launch_segments();
  }
}

// What a product takes in tiles of a shape: rounds over the multiprocessors, times cycles of a stage, by what the
// tensor cores do in it or, in smaller tiles, what a multiprocessor gets from the second-level cache.
template <class Shape>
int64_t cycles(const ProductArgs& args, int of_stage) {
  return of_stage * ((count_tiles<Shape>(args.m, args.n) + multiprocessors() - 1) / multiprocessors());
}

// All instances there are: two dtypes times three layouts times four shapes.
template <ProductLayout layout, class T>
void start(const ProductArgs& args, const ColumnStatistics& statistics) {
  struct Choice {
    int64_t cycles;
    void (*start)(const ProductArgs&, const ColumnStatistics&);
  };
  const Choice choices[] = {{cycles<Wide>(args, 1024), start<Wide, layout, T>},
                            {cycles<Square>(args, 563), start<Square, layout, T>},
                            {cycles<Medium>(args, 420), start<Medium, layout, T>},
                            {cycles<Narrow>(args, 300), start<Narrow, layout, T>}};
  const Choice* best = choices;
  for (const Choice& choice : choices)
    if (choice.cycles < best->cycles) best = &choice;
  best->start(args, statistics);
}
template <class T>
void start(const ProductArgs& args, const ColumnStatistics& statistics) {
  switch (args.layout) {
    case ProductLayout::rows_rows: return start<ProductLayout::rows_rows, T>(args, statistics);
    case ProductLayout::rows_plain: return start<ProductLayout::rows_plain, T>(args, statistics);
    case ProductLayout::columns_plain: return start<ProductLayout::columns_plain, T>(args, statistics);
  }
}
void start(const ProductArgs& args, const ColumnStatistics& statistics) {
  args.dtype == DType::bf16 ? start<bf16_t>(args, statistics) : start<f16_t>(args, statistics);
}

// Whether bulk copies can serve the operands; that depends on neither the shape of tile nor which of the 16-bit dtypes.
bool maps_serve(const ProductArgs& args) {
  switch (args.layout) {
    case ProductLayout::rows_rows: return maps_serve<Square, ProductLayout::rows_rows, bf16_t>(args);
    case ProductLayout::rows_plain: return maps_serve<Square, ProductLayout::rows_plain, bf16_t>(args);
    case ProductLayout::columns_plain: return maps_serve<Square, ProductLayout::columns_plain, bf16_t>(args);
  }
  return false;
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
bool takes_warpgroups(const ProductArgs& args) {
  // Up to so many rows have kernels of their own (few_rows.h); of a gradient either side may be narrow.
  const bool gradient = args.layout == ProductLayout::columns_plain;
  return (args.m > few_rows_most || (gradient && args.n > few_rows_most)) && args.k > 0 && runs_sm_90a() &&
         maps_serve(args);
}
template bool takes_warpgroups<DeviceKind::LATHE_CUDA_NAMESPACE>(const ProductArgs&);

template <DeviceKind>
void warpgroup_product(const ProductArgs& args) {
  LATHE_CUDA_NAMESPACE::start(args, {});
}
template void warpgroup_product<DeviceKind::LATHE_CUDA_NAMESPACE>(const ProductArgs&);

template <DeviceKind>
bool product_with_statistics(const ProductArgs& args, const ColumnStatistics& statistics) {
  const bool stores_pairs = args.layout == ProductLayout::rows_rows && args.scale == 1.0f &&
                            args.residual.data == nullptr &&
                            LATHE_CUDA_NAMESPACE::takes_pairs(LATHE_CUDA_NAMESPACE::epilogue_of<bf16_t>(args));
  if (!stores_pairs || args.dtype == DType::f32 || args.m == 0 || args.n == 0 ||
      !takes_warpgroups<DeviceKind::LATHE_CUDA_NAMESPACE>(args))
    return false;
  LATHE_CUDA_NAMESPACE::start(args, statistics);
  return true;
}
template bool product_with_statistics<DeviceKind::LATHE_CUDA_NAMESPACE>(const ProductArgs&, const ColumnStatistics&);

}  // namespace lathe::kernels
