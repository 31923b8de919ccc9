// A few rows times several dense weights in one launch. A decode step's product is done when its weight has been read,
// which takes all multiprocessors: the tiles of all weights stand beside each other in the grid. Tiles, steps along k
// and what becomes of the sums are those of dense.cu, and so are the bits.
#include "kernels/matmul/cuda/few_rows.h"

#include "kernels/cuda/dependent_launch.h"
#include "kernels/matmul/cuda/few_rows.cuh"
#include "kernels/matmul/cuda/gated_epilogue.cuh"
#include "kernels/matmul/cuda/operand.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

template <class Shape, class T>
using RowsStage = Stage<Shape, T, Major::k, Major::k>;

// ---- several outputs ----

template <class T>
struct Joined {
  DenseOperand<T> left;
  int64_t k;
  struct Part {
    DenseOperand<T> right;
    Epilogue<T> epilogue;
    unsigned end;  // of its tiles
  } parts[joined_most];
};

template <class Shape, class T, class Resources = typename Shape::Resources>
__global__ void __launch_bounds__(Resources::threads, Resources::blocks)
    joined_kernel(Resources, const __grid_constant__ Joined<T> p) {
  using Stage = RowsStage<Shape, T>;
  int index = 0;
  unsigned before = 0;
  while (index + 1 < joined_most && blockIdx.x >= p.parts[index].end) before = p.parts[index++].end;
  const typename Joined<T>::Part& part = p.parts[index];
  const int64_t first_column = int64_t{blockIdx.x - before} * Shape::n;
  launch_dependents();
  prefetch_rows<Shape::n, Shape::threads>(part.right, first_column, part.epilogue.n, p.k);
  grid_dependency_wait();

  OperandReader<decltype(Stage::left), Major::k, Shape::threads> left;
  OperandReader<decltype(Stage::right), Major::k, Shape::threads> right;
  left.start(p.left, 0, part.epilogue.m, p.k);
  right.start(part.right, first_column, part.epilogue.n, p.k);
  Stage* const stages = dynamic_shared<Stage>();
  typename Shape::Sums sums;
  multiply_stages(sums, stages, stages_along(p.k), [&](int, Stage& stage) {
    left.read(stage.left);
    right.read(stage.right);
  });
  finish_tile<Shape>(part.epilogue, sums, stages, 0, first_column);
}

template <class Shape, class T>
void start(const JoinedProductArgs& args) {
  Joined<T> p{dense_operand<T>(args.left), args.k, {}};
  unsigned tiles = 0;
  for (int i = 0; i < args.count; ++i) {
    const JoinedProductArgs::Part& part = args.parts[i];
    tiles += static_cast<unsigned>((part.n + Shape::n - 1) / Shape::n);
    p.parts[i] = {dense_operand<T>(part.right),
                  {.m = args.m, .n = part.n, .scale = 1.0f, .bias = part.bias, .residual = {}, .out = part.out},
                  tiles};
  }
  if (tiles > 0) launch_dependent("joined_products", dim3(tiles), joined_kernel<Shape, T>, p);
}

template <class T>
void start(const JoinedProductArgs& args) {
  int64_t columns = 0;
  for (const JoinedProductArgs::Part& part : args.parts) columns += part.n;
  columns <= (multiprocessors() - 1) * DecodeRows::n ? start<DecodeColumns, T>(args) : start<DecodeRows, T>(args);
}

// ---- gate and up, whose product goes out alone ----

// A block has the same sixteen columns of both, beside each other in one tile.
constexpr int gated_columns = DecodeRows::n / 2;

template <class T>
struct Gated {
  DenseOperand<T> left, gate, up;
  int64_t k;
  GatedEpilogue<T> epilogue;
};

template <class T>
using GatedStage = RowsStage<DecodeRows, T>;
template <class T>
using GatedHalf = OperandTile<T, gated_columns, Major::k>;

// The rows of a stage's right tile from gated_columns · index on, as a tile.
template <int index, class T>
__device__ __forceinline__ GatedHalf<T>& half_of(GatedStage<T>& stage) {
  using Whole = decltype(GatedStage<T>::right);
  constexpr int start = index * gated_columns * Whole::pitch;
  static_assert(Whole::offset(index * gated_columns + 5, 24) == start + GatedHalf<T>::offset(5, 24),
                "a tile's rows lie as those of the whole");
  return *reinterpret_cast<GatedHalf<T>*>(stage.right.elements + start);
}

template <class T, class Gate, class Resources = DecodeRows::Resources>
__global__ void __launch_bounds__(Resources::threads, Resources::blocks)
    gated_kernel(Resources, const __grid_constant__ Gated<T> p) {
  const int64_t first_column = int64_t{blockIdx.x} * gated_columns, n = p.epilogue.n;
  launch_dependents();
  prefetch_rows<gated_columns, DecodeRows::threads>(p.gate, first_column, n, p.k);
  prefetch_rows<gated_columns, DecodeRows::threads>(p.up, first_column, n, p.k);
  grid_dependency_wait();
  OperandReader<decltype(GatedStage<T>::left), Major::k, DecodeRows::threads> left;
  OperandReader<GatedHalf<T>, Major::k, DecodeRows::threads> gate, up;
  left.start(p.left, 0, p.epilogue.m, p.k);
  gate.start(p.gate, first_column, n, p.k);
  up.start(p.up, first_column, n, p.k);
  GatedStage<T>* const stages = dynamic_shared<GatedStage<T>>();
  DecodeRows::Sums sums;
  multiply_stages(sums, stages, stages_along(p.k), [&](int, GatedStage<T>& stage) {
    left.read(stage.left);
    gate.read(half_of<0, T>(stage));
    up.read(half_of<1, T>(stage));
  });
  using Sums = GatedSums<DecodeRows::m, gated_columns>;
  static_assert(sizeof(Sums) <= DecodeRows::shared_bytes);
  Sums& all = *reinterpret_cast<Sums*>(stages);
  __syncthreads();  // all are done with the last stage
  store_fragments(sums, all, DecodeRows::warp_row(), DecodeRows::warp_column());
  __syncthreads();  // the sums are there
  finish_gated<T, Gate, DecodeRows::m, gated_columns>(p.epilogue, all, 0, first_column);
}

template <class T>
void start(const GatedProductArgs& args) {
  const Gated<T> p{.left = dense_operand<T>(args.left),
                   .gate = dense_operand<T>(args.gate),
                   .up = dense_operand<T>(args.up),
                   .k = args.k,
                   .epilogue = gated_epilogue<T>(args.m, args.n, args.out)};
  const dim3 grid(static_cast<unsigned>((args.n + gated_columns - 1) / gated_columns));
  if (args.n == 0) return;
  args.activation == Activation::silu ? launch_dependent("gated_products", grid, gated_kernel<T, Silu>, p)
                                      : launch_dependent("gated_products", grid, gated_kernel<T, GeluTanh>, p);
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
void joined_products(const JoinedProductArgs& args) {
  if (joined_by_wgmma<DeviceKind::LATHE_CUDA_NAMESPACE>(args)) return;
  args.dtype == DType::bf16 ? start<bf16_t>(args) : start<f16_t>(args);
}
template void joined_products<DeviceKind::LATHE_CUDA_NAMESPACE>(const JoinedProductArgs&);

template <DeviceKind>
void gated_products(const GatedProductArgs& args) {
  if (gated_by_wgmma<DeviceKind::LATHE_CUDA_NAMESPACE>(args)) return;
  args.dtype == DType::bf16 ? start<bf16_t>(args) : start<f16_t>(args);
}
template void gated_products<DeviceKind::LATHE_CUDA_NAMESPACE>(const GatedProductArgs&);

}  // namespace lathe::kernels
