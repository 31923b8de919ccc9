// Many rows in groups, each by a dense weight of its own: a group is a row of tiles. Steps along k and what becomes of
// the sums are those of dense.cu, and so are the bits. Blocks stay and take tile after tile, since how many there are
// stands in device memory: a block for each that there might be would be as many again as there are experts, and of a
// band of weights (kernels/matmul/grouped.cpp) nearly all.
#include "kernels/cuda/dependent_launch.h"
#include "kernels/cuda/ptx/grid_dependency.h"
#include "kernels/matmul/cuda/gated_stage.cuh"
#include "kernels/matmul/cuda/grouped.cuh"
#include "kernels/matmul/cuda/operand.cuh"
#include "kernels/matmul/cuda/product_shapes.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

static_assert(MediumTiles::m == medium_group_rows && LargeTiles::m == large_group_rows);

template <class T>
struct TileWeights {
  PlacesOf<DensePlace> of;
  const T* room;
  int64_t stride, rows;  // rows: of each in the room
  int first;
  int64_t first_bias;

  __device__ __forceinline__ DenseOperand<T> operand(int number) const {
    if (room != nullptr) return {room + (number - first) * rows * stride, stride, true};
    return {static_cast<const T*>(of.places[number].words), stride, true};
  }
  __device__ __forceinline__ const T* bias(int number) const {
    const T* const all = of.template bias<T>(number);
    return all == nullptr ? nullptr : all + first_bias;
  }
};

template <class T>
struct GroupTiles {
  RowGroups groups;
  const int32_t* begins;
  int first, end;
  DenseOperand<T> left;
  int64_t k;
  TileWeights<T> weights, up;
  GateKind gate;
  GroupedOut<T> out;
};

// Tiles as such, in find_tile's order.
struct OneTile {
  static constexpr int m = 1, n = 1;
};

// Calls body(group, first_column) for each tile of this block, of so many columns.
template <int columns, class T, class Body>
__device__ __forceinline__ void for_each_tile(const GroupTiles<T>& p, Body body) {
  const int first = p.begins[p.first];
  const unsigned groups = static_cast<unsigned>(p.begins[p.end] - first),
                 across = static_cast<unsigned>((p.out.n + columns - 1) / columns);
  for (unsigned tile = blockIdx.x; tile < groups * across; tile += gridDim.x) {
    int64_t group, column;
    find_tile<OneTile>(tile, groups, across, group, column);
    body(p.groups.at(first + group), column * columns);
  }
}

template <class Shape, class T>
using TileStage = Stage<Shape, T, Major::k, Major::k>;

template <class Shape, class T, class Resources = typename Shape::Resources>
__global__ void __launch_bounds__(Resources::threads, Resources::blocks)
    grouped_tiles_kernel(Resources, const __grid_constant__ GroupTiles<T> p) {
  using Stage = TileStage<Shape, T>;
  begin_dependent();
  Stage* const stages = dynamic_shared<Stage>();
  for_each_tile<Shape::n>(p, [&](const RowGroup& group, int64_t first_column) {
    OperandReader<decltype(Stage::left), Major::k, Shape::threads> left;
    OperandReader<decltype(Stage::right), Major::k, Shape::threads> right;
    left.start({p.left.data + group.begin * p.left.stride, p.left.stride, p.left.aligned}, 0, group.rows, p.k);
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
__device__ __forceinline__ void finish_gated_tile(GateKind gate, const GatedEpilogue<T>& epilogue,
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
    finish_gated_tile<Shape, T>(p.gate, p.out.of(group), sums, stages, first_column,
                                {p.weights.bias(group.number), p.up.bias(group.number)});
  });
}

template <class Shape, class T>
void start(const GroupTilesArgs& args) {
  const GroupedArgs& product = args.product;
  const int first = static_cast<int>(args.first);
  const auto weights = [&](const GroupedWeights& of, const void* room) {
    return TileWeights<T>{PlacesOf<DensePlace>(of), static_cast<const T*>(room), args.stride, product.n, first,
                          args.first_bias};
  };
  const GroupTiles<T> p{.groups = RowGroups(product),
                        .begins = args.begins,
                        .first = first,
                        .end = static_cast<int>(args.end),
                        .left = dense_operand<T>(product.left),
                        .k = product.k,
                        .weights = weights(product.weights, args.room),
                        .up = weights(product.up, args.up_room),
                        .gate = product.gate,
                        .out = GroupedOut<T>(product)};
  const int64_t columns = product.is_gated() ? gated_columns_of<Shape> : Shape::n;
  const int64_t tiles = product.groups * ((product.n + columns - 1) / columns);
  const int64_t places = int64_t{Shape::Resources::blocks} * multiprocessors();
  const dim3 grid(static_cast<unsigned>(tiles < places ? tiles : places));
  product.is_gated() ? launch_dependent("grouped_gated_tiles", grid, grouped_gated_tiles_kernel<Shape, T>, p)
                     : launch_dependent("grouped_tiles", grid, grouped_tiles_kernel<Shape, T>, p);
}

template <class T>
void start(const GroupTilesArgs& args) {
  args.product.group_rows == large_group_rows ? start<LargeTiles, T>(args) : start<MediumTiles, T>(args);
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
void grouped_tiles(const GroupTilesArgs& args) {
  using namespace LATHE_CUDA_NAMESPACE;
  args.product.dtype == DType::bf16 ? start<bf16_t>(args) : start<f16_t>(args);
}
template void grouped_tiles<DeviceKind::LATHE_CUDA_NAMESPACE>(const GroupTilesArgs&);

template <DeviceKind>
bool takes_large_groups() {
  return LATHE_CUDA_NAMESPACE::LargeTiles::shared_bytes <= LATHE_CUDA_NAMESPACE::shared_bytes_per_block();
}
template bool takes_large_groups<DeviceKind::LATHE_CUDA_NAMESPACE>();

}  // namespace lathe::kernels
