// Products of bf16 and f16 matrices on the tensor cores by mma.sync, in tiles (mainloop.cuh). The shape of tile follows
// the extents and the card; the bits of an element do not. On sm_90a large ones go to dense_sm_90a.cu, those
// of few rows to few_rows_sm_90a.cu.
#include "kernels/matmul/cuda/product.h"

#include "kernels/cuda/bounds.h"
#include "kernels/cuda/dependent_launch.h"
#include "kernels/matmul/cuda/epilogue.cuh"
#include "kernels/matmul/cuda/few_rows.cuh"
#include "kernels/matmul/cuda/few_rows.h"
#include "kernels/matmul/cuda/operand.cuh"
#include "kernels/matmul/cuda/product_shapes.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

using Large = LargeTiles;
using Medium = MediumTiles;
// Few rows or few columns (LoRA's products): the time is that of streaming the other operand, so that a tile should
// waste little and there should be one for every multiprocessor.
using Narrow = ProductShape<64, 32, 64, 8, 4, 3>;
// The gradient of a narrow weight: 8 to 256 tiles, each of which walks along all tokens, so that more of them are under
// way in a block, of which fewer fit.
using NarrowGradient = ProductShape<64, 32, 64, 8, 6, 2>;
template <class Shape>
inline constexpr bool is_decode = Shape::m == DecodeRows::m;

constexpr Major left_major(ProductLayout layout) {
  return layout == ProductLayout::columns_plain ? Major::mn : Major::k;
}
constexpr Major right_major(ProductLayout layout) { return layout == ProductLayout::rows_rows ? Major::k : Major::mn; }

template <class T>
struct Pair {
  DenseOperand<T> left, right;
  int64_t k;
};

template <class T>
struct Product {
  Pair<T> pairs[2];  // the weight, then LoRA (k = 0: none)
  Epilogue<T> epilogue;
};

template <class Shape, ProductLayout layout, class T>
using StageOf = Stage<Shape, T, left_major(layout), right_major(layout)>;

// Stages from the first pair along its k, then from the second.
template <class Stage>
class StageSource {
  using Shape = typename Stage::Shape;
  using T = typename Stage::T;

 public:
  __device__ __forceinline__ StageSource(const Product<T>& p, const Pair<T>& first, int64_t first_row,
                                         int64_t first_column)
      : p_(p), first_row_(first_row), first_column_(first_column), first_steps_(stages_along(first.k)) {
    start(first_steps_ > 0 ? first : p.pairs[1]);
  }
  __device__ __forceinline__ int steps() const { return first_steps_ + stages_along(p_.pairs[1].k); }

  __device__ __forceinline__ void fill(int step, Stage& stage) {
    if (step == first_steps_) start(p_.pairs[1]);
    left_.read(stage.left);
    right_.read(stage.right);
  }

 private:
  __device__ __forceinline__ void start(const Pair<T>& pair) {
    left_.start(pair.left, first_row_, p_.epilogue.m, pair.k);
    right_.start(pair.right, first_column_, p_.epilogue.n, pair.k);
  }

  const Product<T>& p_;
  int64_t first_row_, first_column_;
  int first_steps_;
  OperandReader<decltype(Stage::left), Stage::left_major, Shape::threads> left_;
  OperandReader<decltype(Stage::right), Stage::right_major, Shape::threads> right_;
};

// A block's tile of the product, whose first pair is `first`.
template <class Stage, class T>
__device__ __forceinline__ void multiply_tile(const Product<T>& p, const Pair<T>& first, int64_t first_row,
                                              int64_t first_column) {
  using Shape = typename Stage::Shape;
  Stage* stages = dynamic_shared<Stage>();
  StageSource<Stage> source(p, first, first_row, first_column);
  typename Shape::Sums sums;
  multiply_stages(sums, stages, source.steps(), [&](int step, Stage& stage) { source.fill(step, stage); });
  finish_tile<Shape>(p.epilogue, sums, stages, first_row, first_column);
}

template <class Shape, ProductLayout layout, class T, class Resources = typename Shape::Resources>
__global__ void __launch_bounds__(Resources::threads, Resources::blocks) product_kernel(Resources, Product<T> p) {
  int64_t first_row, first_column;
  find_tile<Shape>(blockIdx.x, p.epilogue.m, p.epilogue.n, first_row, first_column);
  if constexpr (is_decode<Shape>) {
    launch_dependents();
    prefetch_rows<Shape::n, Shape::threads>(p.pairs[0].right, first_column, p.epilogue.n, p.pairs[0].k);
    grid_dependency_wait();
  }
  multiply_tile<StageOf<Shape, layout, T>>(p, p.pairs[0], first_row, first_column);
}

// The gradient of a weight: a sum for each sequence, from zero, added to the total that lies in out. What a block adds
// for the next sequence it reads back from the cache; totals in registers beside the sums would halve the tile.
template <class Shape, class T, class Resources = typename Shape::Resources>
__global__ void __launch_bounds__(Resources::threads, Resources::blocks)
    sequences_kernel(Resources, Product<T> p, SequenceBounds bounds) {
  int64_t first_row, first_column;
  find_tile<Shape>(blockIdx.x, p.epilogue.m, p.epilogue.n, first_row, first_column);
  for (int s = 0; s < bounds.count; ++s) {
    const int64_t begin = bounds.at[s], tokens = bounds.at[s + 1] - begin;
    if (tokens == 0) continue;
    const DenseOperand<T>&left = p.pairs[0].left, &right = p.pairs[0].right;
    const Pair<T> part{{left.data + begin * left.stride, left.stride, left.aligned},
                       {right.data + begin * right.stride, right.stride, right.aligned},
                       tokens};
    multiply_tile<StageOf<Shape, ProductLayout::columns_plain, T>>(p, part, first_row, first_column);
  }
}

template <class T>
Product<T> product_of(const ProductArgs& args) {
  return {{{dense_operand<T>(args.left), dense_operand<T>(args.right), args.k},
           {dense_operand<T>(args.left2), dense_operand<T>(args.right2), args.k2}},
          epilogue_of<T>(args)};
}

template <class Shape>
dim3 grid_for(const ProductArgs& args) {
  return dim3(static_cast<unsigned>(count_tiles<Shape>(args.m, args.n)));
}

template <class Shape, ProductLayout layout, class T>
void start(const ProductArgs& args) {
  if constexpr (is_decode<Shape>) {
    launch_dependent("product", grid_for<Shape>(args), product_kernel<Shape, layout, T>, product_of<T>(args));
  } else {
    launch("product", grid_for<Shape>(args), product_kernel<Shape, layout, T>, product_of<T>(args));
  }
}

template <class Shape, class T>
void start_sequences(const ProductArgs& args) {
  for_each_launch(args.cu_seqlens, args.sequences, [&](const SequenceBounds& bounds) {
    launch("product_of_sequences", grid_for<Shape>(args), sequences_kernel<Shape, T>, product_of<T>(args), bounds);
  });
}

// All instances there are: two dtypes times eleven. A large tile is worth it when every multiprocessor gets one; cards
// of the RTX kind have no room for it.
template <class T>
void start(const ProductArgs& args) {
  const bool large =
      Large::shared_bytes <= shared_bytes_per_block() && count_tiles<Large>(args.m, args.n) >= multiprocessors();
  const bool narrow = args.m <= Narrow::m || args.n <= Narrow::n;
  switch (args.layout) {
    case ProductLayout::rows_rows: {
      constexpr ProductLayout layout = ProductLayout::rows_rows;
      if (args.m <= DecodeRows::m)
        return count_tiles<DecodeRows>(args.m, args.n) < multiprocessors() ? start<DecodeColumns, layout, T>(args)
                                                                           : start<DecodeRows, layout, T>(args);
      if (narrow) return start<Narrow, layout, T>(args);
      return large ? start<Large, layout, T>(args) : start<Medium, layout, T>(args);
    }
    case ProductLayout::rows_plain: {
      constexpr ProductLayout layout = ProductLayout::rows_plain;
      if (narrow) return start<Narrow, layout, T>(args);
      return large ? start<Large, layout, T>(args) : start<Medium, layout, T>(args);
    }
    case ProductLayout::columns_plain:
      if (narrow) return start_sequences<NarrowGradient, T>(args);
      return large ? start_sequences<Large, T>(args) : start_sequences<Medium, T>(args);
  }
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
void product_tiles(const ProductArgs& args) {
  if (takes_warpgroups<DeviceKind::LATHE_CUDA_NAMESPACE>(args))
    return warpgroup_product<DeviceKind::LATHE_CUDA_NAMESPACE>(args);
  if (few_rows_by_wgmma<DeviceKind::LATHE_CUDA_NAMESPACE>(args)) return;
  args.dtype == DType::bf16 ? start<bf16_t>(args) : start<f16_t>(args);
}
template void product_tiles<DeviceKind::LATHE_CUDA_NAMESPACE>(const ProductArgs&);

}  // namespace lathe::kernels
