// Many rows in groups, each by a dense weight of its own (group_tiles.cuh), and the gradients of these rows, by
// mma.sync. Steps along k and what becomes of the sums are those of dense.cu, and so are the bits. On sm_90a most go to
// grouped_tiles_sm_90a.cu.
#include "kernels/cuda/dependent_launch.h"
#include "kernels/cuda/ptx/grid_dependency.h"
#include "kernels/matmul/cuda/gated_stage.cuh"
#include "kernels/matmul/cuda/group_tiles.cuh"
#include "kernels/matmul/cuda/product_shapes.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

static_assert(MediumTiles::m == medium_group_rows && LargeTiles::m == large_group_rows);

// A group's rows of an operand.
template <class T>
__device__ __forceinline__ DenseOperand<T> rows_of(const RowGroup& group, const DenseOperand<T>& all) {
  return {all.data + group.begin * all.stride, all.stride, all.aligned};
}

template <class Shape, class T>
using TileStage = Stage<Shape, T, Major::k, Major::k>;
template <class Shape, class T>
using GradientStage = Stage<Shape, T, Major::k, Major::mn>;

template <class Shape, class T, class Resources = typename Shape::Resources>
__global__ void __launch_bounds__(Resources::threads, Resources::blocks)
    grouped_tiles_kernel(Resources, const __grid_constant__ GroupTiles<T> p) {
  using Stage = TileStage<Shape, T>;
  begin_dependent();
  Stage* const stages = dynamic_shared<Stage>();
  for_each_tile<Shape::n>(p, [&](const RowGroup& group, int64_t first_column) {
    OperandReader<decltype(Stage::left), Major::k, Shape::threads> left;
    OperandReader<decltype(Stage::right), Major::k, Shape::threads> right;
    left.start(rows_of(group, p.left), 0, group.rows, p.k);
    right.start(p.weights.operand(group.number), first_column, p.out.n, p.k);
    typename Shape::Sums sums;
    multiply_stages(sums, stages, stages_along(p.k), [&](int, Stage& stage) {
      left.read(stage.left);
      right.read(stage.right);
    });
    finish_tile<Shape>(p.out.of(group, p.weights.bias(group.number)), sums, stages, 0, first_column);
  });
}

// ---- gate and up, whose product goes out alone ----

template <class Shape, class T>
__device__ __forceinline__ void finish_gated_tile(GateKind gate, const KeptGatedEpilogue<T>& epilogue,
                                                  const typename Shape::Sums& sums, void* memory, int64_t first_column,
                                                  const GatedBias<T>& bias) {
  constexpr int eights = gated_columns_of<Shape> / 8;
  const auto& all = gated_sums_of_tile<Shape>(sums, memory);
  const auto finish = [&](auto kind) {
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x); i < Shape::m * eights; i += Shape::threads)
      finish_gated_eight<T, decltype(kind), Shape::m, gated_columns_of<Shape>>(epilogue, all, i / eights,
                                                                               i % eights * 8, 0, first_column, bias);
  };
  gate == GateKind::silu ? finish(Silu{}) : gate == GateKind::gelu_tanh ? finish(GeluTanh{}) : finish(ClampedSilu{});
  __syncthreads();  // and have been read
}

template <class Shape, class T, class Resources = typename Shape::Resources>
__global__ void __launch_bounds__(Resources::threads, Resources::blocks)
    grouped_gated_tiles_kernel(Resources, const __grid_constant__ GroupTiles<T> p) {
  using Stage = TileStage<Shape, T>;
  begin_dependent();
  Stage* const stages = dynamic_shared<Stage>();
  for_each_tile<gated_columns_of<Shape>>(p, [&](const RowGroup& group, int64_t first_column) {
    OperandReader<decltype(Stage::left), Major::k, Shape::threads, true> left;
    OperandReader<GatedHalf<Shape, T>, Major::k, Shape::threads> gate;
    left.start_listed(p.left, p.groups.rows + group.begin, group.rows, p.k);
    const DenseOperand<T> gate_rows = p.weights.operand(group.number);
    gate.start(gate_rows, first_column, p.out.n, p.k);
    // Two operands' elements are a number of these apart, wherever they lie: both begin at multiples of 16 bytes.
    const int64_t apart = static_cast<int64_t>(reinterpret_cast<uintptr_t>(p.up.operand(group.number).data) -
                                               reinterpret_cast<uintptr_t>(gate_rows.data)) /
                          static_cast<int64_t>(sizeof(T));
    typename Shape::Sums sums;
    multiply_stages(sums, stages, stages_along(p.k), [&](int, Stage& stage) {
      left.read(stage.left);
      gate.read(half_of<0, Shape, T>(stage), half_of<1, Shape, T>(stage), apart);
    });
    finish_gated_tile<Shape, T>(p.gate, p.gated_out(group), sums, stages, first_column,
                                {p.weights.bias(group.number), p.up.bias(group.number)});
  });
}

// ---- the gradient of the rows that the products were of ----

// One term, or gate's and then up's, as linear_input_gradient adds to what there is: each is summed from zero, the
// first is rounded and goes out, and the thread that has written an element adds it to the second.
template <class Shape, class T, class Resources = typename Shape::Resources>
__global__ void __launch_bounds__(Resources::threads, Resources::blocks)
    grouped_gradient_tiles_kernel(Resources, const __grid_constant__ GroupTiles<T> p) {
  using Stage = GradientStage<Shape, T>;
  begin_dependent();
  Stage* const stages = dynamic_shared<Stage>();
  const int terms = p.up_left.data == nullptr ? 1 : 2;
  for_each_tile<Shape::n>(p, [&](const RowGroup& group, int64_t first_column) {
    Epilogue<T> out = p.out.of(group, nullptr);
#pragma unroll 1
    for (int term = 0; term < terms; ++term) {
      OperandReader<decltype(Stage::left), Major::k, Shape::threads> left;
      OperandReader<decltype(Stage::right), Major::mn, Shape::threads> right;
      left.start(rows_of(group, term == 0 ? p.left : p.up_left), 0, group.rows, p.k);
      right.start((term == 0 ? p.weights : p.up).operand(group.number), first_column, p.out.n, p.k);
      typename Shape::Sums sums;
      multiply_stages(sums, stages, stages_along(p.k), [&](int, Stage& stage) {
        left.read(stage.left);
        right.read(stage.right);
      });
      finish_tile<Shape>(out, sums, stages, 0, first_column);
      out.residual = out.out;
    }
  });
}

template <class Shape, class T>
void start(const GroupTilesArgs& args) {
  const bool gated = args.product.is_gated();
  const auto p = tiles_of<T>(args, args.product.n * args.stride);
  const dim3 grid = grid_of<Shape>(args.product, gated ? gated_columns_of<Shape> : Shape::n);
  gated ? launch_dependent("grouped_gated_tiles", grid, grouped_gated_tiles_kernel<Shape, T>, p)
        : launch_dependent("grouped_tiles", grid, grouped_tiles_kernel<Shape, T>, p);
}

template <class Shape, class T>
void start_gradient(const GroupTilesArgs& args) {
  launch_dependent("grouped_gradient_tiles", grid_of<Shape>(args.product, Shape::n),
                   grouped_gradient_tiles_kernel<Shape, T>, tiles_of<T>(args, args.product.k * args.stride));
}

// Calls body.operator()<Shape, T>().
template <class Body>
void with_tiles(const GroupedArgs& product, Body body) {
  const auto with_shape = [&]<class T>(T) {
    product.group_rows == large_group_rows ? body.template operator()<LargeTiles, T>()
                                           : body.template operator()<MediumTiles, T>();
  };
  product.dtype == DType::bf16 ? with_shape(bf16_t{}) : with_shape(f16_t{});
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
void grouped_tiles(const GroupTilesArgs& args) {
  using namespace LATHE_CUDA_NAMESPACE;
  if (grouped_tiles_by_wgmma<DeviceKind::LATHE_CUDA_NAMESPACE>(args)) return;
  with_tiles(args.product, [&]<class Shape, class T>() { start<Shape, T>(args); });
}
template void grouped_tiles<DeviceKind::LATHE_CUDA_NAMESPACE>(const GroupTilesArgs&);

template <DeviceKind>
void grouped_gradient_tiles(const GroupTilesArgs& args) {
  using namespace LATHE_CUDA_NAMESPACE;
  if (grouped_gradient_by_wgmma<DeviceKind::LATHE_CUDA_NAMESPACE>(args)) return;
  with_tiles(args.product, [&]<class Shape, class T>() { start_gradient<Shape, T>(args); });
}
template void grouped_gradient_tiles<DeviceKind::LATHE_CUDA_NAMESPACE>(const GroupTilesArgs&);

template <DeviceKind>
bool takes_large_groups() {
  return LATHE_CUDA_NAMESPACE::LargeTiles::shared_bytes <= LATHE_CUDA_NAMESPACE::shared_bytes_per_block();
}
template bool takes_large_groups<DeviceKind::LATHE_CUDA_NAMESPACE>();

}  // namespace lathe::kernels
