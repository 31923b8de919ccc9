// Products of bf16 and f16 matrices by wgmma (sm_90a; warpgroup_product.cuh), with the bits of dense.cu. One thread of
// a block's producer keeps bulk copies of stages under way. Blocks stay, as many as there is room for, and take tile
// after tile: the next tile's first stages come while this one's sums are written.
//
// Pairs of blocks (clusters of two, each of which copied half of the right operand's rows to both) asked the
// second-level cache for a third less, and lost: 4096 rows on an H200, beside cuBLASLt, 0.98 to 1.06 of its speed where
// blocks by themselves had 0.99 to 1.15; of a gradient of weights 0.90 and 0.95.
#include "kernels/matmul/cuda/column_statistics.h"
#include "kernels/matmul/cuda/few_rows.h"
#include "kernels/matmul/cuda/product.h"
#include "kernels/matmul/cuda/warpgroup_product.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

using Wide = WideWarpgroups;
// For products that have too few wide tiles for the multiprocessors.
using Square = WarpgroupShape<128, 128, 6, 1>;
using Medium = MediumWarpgroups;
// For LoRA's products, of which one side has sixteen columns or so: zeros come for the rest without being read, and the
// time is that of streaming the other side, 96 KiB of it under way in a block.
using Narrow = WarpgroupShape<64, 64, 6, 2>;

constexpr Major left_major(ProductLayout layout) {
  return layout == ProductLayout::columns_plain ? Major::mn : Major::k;
}
constexpr Major right_major(ProductLayout layout) { return layout == ProductLayout::rows_rows ? Major::k : Major::mn; }

template <class Shape, ProductLayout layout, class T>
using Stages =
    WarpgroupStages<Shape, BulkOperand<T, Shape::m, left_major(layout)>, BulkOperand<T, Shape::n, right_major(layout)>>;

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

template <ProductLayout layout, class Stages, class Segments>
__device__ __forceinline__ void consume(Stages& shared, const Segments& segments, const Epilogue<typename Stages::T>& e,
                                        const ColumnStatistics& statistics, int group) {
  using Shape = typename Stages::Shape;
  constexpr bool sum_each = layout == ProductLayout::columns_plain;
  const int warp = static_cast<int>(threadIdx.x) % 128 / 32, row = 64 * group;
  const bool rounds = !sum_each && only_rounds(e), pairs = takes_pairs(e);
  int steps_of_all = 0;
  for (int s = 0; s < segments.count; ++s) steps_of_all += segments.steps[s];
  RingPlace<Shape::stages> place;
  for_each_tile<Shape>(e.m, e.n, [&](int first_row, int first_column) {
    for (int s = 0; s < (sum_each ? segments.count : 1); ++s) {
      float sums[Shape::n / 2];
      multiply_stages(sums, shared, row, sum_each ? segments.steps[s] : steps_of_all, place);
      SumsTile& tile = shared.sums[4 * group + warp];
      if (layout == ProductLayout::rows_rows && statistics.pairs != nullptr) {
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
  with_warpgroups<WarpgroupRegisters<Shape>>(
      [&] {
        if (threadIdx.x == 0) produce(shared, segments, epilogue.m, epilogue.n);
      },
      [&](int group) { consume<layout>(shared, segments, epilogue, statistics, group); });
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
  return (args.m > few_rows_most || (gradient && args.n > few_rows_most)) && args.k > 0 && multiplies_by_warpgroups() &&
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
