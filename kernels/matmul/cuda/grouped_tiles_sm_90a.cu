// Many rows in groups, each by a dense weight of its own, and the gradients of these rows, by wgmma (sm_90a): the tiles
// of grouped_tiles.cu (group_tiles.cuh), with its bits, by blocks of the kind of dense_sm_90a.cu.
//
// Rows of a group lie one after another, and bulk copies bring them. Behind a short group's come those of the next,
// whose sums nobody looks at; a consuming warpgroup whose 64 rows are all such leaves the tensor cores to the other.
//
// The rows that gate and up multiply are listed. The producing warps copy these by cp.async, 16 bytes at a time, to
// where wgmma expects them: 32 instructions in the 1024 cycles that a stage takes the tensor cores. To put them
// together first would take a launch, room for a token's row as often as it has experts, and a pass through memory: for
// Qwen3-30B-A3B a fifth of the time of both products (docs/performance.md).
//
// Each weight has a tensor map in device memory, made with its table, which a block acquires (a fence) for each tile;
// or all are matrices of one map, a launch's argument, where they were dequantised one after another.
#include <cstring>

#include "kernels/cuda/dependent_launch.h"
#include "kernels/cuda/ptx/grid_dependency.h"
#include "kernels/matmul/cuda/gated_stage.cuh"
#include "kernels/matmul/cuda/group_tiles.cuh"
#include "kernels/matmul/cuda/warpgroup_product.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

using Wide = WideWarpgroups;
using Medium = MediumWarpgroups;
static_assert(Medium::m == medium_group_rows && Wide::m == large_group_rows);

constexpr int weight_box = 64;  // rows: one map serves products and gradients in every shape of tile
static_assert(sizeof(TensorMap) <= weight_map_bytes);

// Where bulk copies find the weights.
struct WeightMaps {
  const unsigned char* table;  // a map of one matrix each, weight_map_bytes apart; null: they are in the room
  TensorMap room;              // the weights from `first` on
  int first;

  __device__ __forceinline__ const TensorMap& of(int number) const {
    return table == nullptr ? room : *reinterpret_cast<const TensorMap*>(table + number * weight_map_bytes);
  }
  __device__ __forceinline__ int matrix(int number) const { return table == nullptr ? number - first : 0; }
  // By the thread that copies.
  __device__ __forceinline__ void acquire(int number) const {
    if (table != nullptr) acquire_map(of(number));
  }
};

struct GroupMaps {
  TensorMap left, up_left;  // all groups' rows; of gate and up, whose rows are listed, none
  WeightMaps weights, up;
};

template <class Shape, class T, Major right_major>
using Stages =
    WarpgroupStages<Shape, BulkOperand<T, Shape::m, Major::k>, BulkOperand<T, Shape::n, right_major, weight_box>>;

// A consuming warpgroup has no rows in the tile.
template <class Stages>
__device__ __forceinline__ void skip_stages(Stages& shared, int steps, RingPlace<Stages::Shape::stages>& place) {
  for (int step = 0; step < steps; ++step, place.advance()) {
    shared.pipeline.wait_until_full(place);
    shared.pipeline.release(place.stage);
  }
}

// ---- products, and the gradients of their rows, which may have a term of each of two weights ----

template <class Stages, class T>
__device__ __forceinline__ void produce(Stages& shared, const GroupTiles<T>& p, const GroupMaps& maps, int terms) {
  using Shape = typename Stages::Shape;
  const int steps = stages_along(p.k);
  RingPlace<Shape::stages> place;
  for_each_tile<Shape::n>(p, [&](const RowGroup& group, int64_t first_column) {
    for (int term = 0; term < terms; ++term) {
      const TensorMap& rows = term == 0 ? maps.left : maps.up_left;
      const WeightMaps& weights = term == 0 ? maps.weights : maps.up;
      weights.acquire(group.number);
      const TensorMap& weight = weights.of(group.number);
      const int matrix = weights.matrix(group.number);
      for (int step = 0; step < steps; ++step, place.advance()) {
        auto& left = shared.left[place.stage];
        auto& right = shared.right[place.stage];
        MBarrier& full = shared.pipeline.full[place.stage];
        shared.pipeline.begin_fill(place, left.bytes + right.bytes);
        left.copy(rows, group.begin, step * bulk_k, full);
        right.copy_of(matrix, weight, static_cast<int>(first_column), step * bulk_k, full);
      }
    }
  });
}

// Each term is summed from zero; the first is rounded and goes out, and the warp that has written it adds it to the
// second, as linear_input_gradient adds to what there is.
template <Major right_major, class Stages, class T>
__device__ __forceinline__ void consume(Stages& shared, const GroupTiles<T>& p, int terms, int warpgroup) {
  using Shape = typename Stages::Shape;
  const int warp = static_cast<int>(threadIdx.x) % 128 / 32, row = 64 * warpgroup, steps = stages_along(p.k);
  SumsTile& tile = shared.sums[4 * warpgroup + warp];
  RingPlace<Shape::stages> place;
  for_each_tile<Shape::n>(p, [&](const RowGroup& group, int64_t first_column) {
    if (row >= group.rows) return skip_stages(shared, terms * steps, place);
    Epilogue<T> out = p.out.of(group, right_major == Major::k ? p.weights.bias(group.number) : nullptr);
    for (int term = 0; term < terms; ++term) {
      float sums[Shape::n / 2];
      multiply_stages(sums, shared, row, steps, place);
      if (only_rounds(out) && first_column + Shape::n <= out.n) {
        round_rows(out, sums, tile, row + 16 * warp, first_column);
      } else {
        finish_rows(out, sums, tile, row + 16 * warp, first_column);
      }
      out.residual = out.out;
    }
  });
}

template <class Shape, class T, Major right_major, class Resources = typename Shape::Resources>
__global__ void __launch_bounds__(Resources::threads, Resources::blocks)
    grouped_warpgroup_kernel(Resources, const __grid_constant__ GroupTiles<T> p,
                             const __grid_constant__ GroupMaps maps) {
  using Shared = Stages<Shape, T, right_major>;
  static_assert(sizeof(Shared) <= Resources::shared_bytes);
  Shared& shared = *swizzled_shared<Shared>();
  if (threadIdx.x == 0) shared.pipeline.init(Shape::consuming_warps);
  begin_dependent();
  __syncthreads();  // the mbarriers are there for all
  const int terms = p.up_left.data == nullptr ? 1 : 2;
  with_warpgroups<WarpgroupRegisters<Shape>>(
      [&] {
        if (threadIdx.x == 0) produce(shared, p, maps, terms);
      },
      [&](int warpgroup) { consume<right_major>(shared, p, terms, warpgroup); });
}

// ---- gate and up, whose product goes out alone ----

constexpr int copying_warps = 4;
// A producer that lists rows needs a few more, and of two blocks on a multiprocessor, 128 of a thread, a consumer that
// has an activation to compute.
template <class Shape>
using GatedRegisters = std::conditional_t<(Shape::consumers > 1), RegisterSplit<Shape::consumers, 56, 224>,
                                          RegisterSplit<Shape::consumers, 88, 168, Shape::Resources::blocks>>;

// The producing warpgroup. Its copies of a stage are delivered when those of the next have been asked for.
template <class Stages, class T>
__device__ __forceinline__ void produce_gated(Stages& shared, const GroupTiles<T>& p, const GroupMaps& maps) {
  using Shape = typename Stages::Shape;
  using RowsTile = OperandTile<T, Shape::m, Major::k>;
  constexpr int columns = gated_columns_of<Shape>;
  const int steps = stages_along(p.k);
  RingPlace<Shape::stages> place;
  int before = -1;  // the stage that is to be delivered
  for_each_tile<columns>(p, [&](const RowGroup& group, int64_t first_column) {
    OperandReader<RowsTile, Major::k, 32 * copying_warps, true> rows;
    rows.start_listed(p.left, p.groups.rows + group.begin, group.rows, p.k);
    if (threadIdx.x == 0) maps.weights.acquire(group.number), maps.up.acquire(group.number);
    for (int step = 0; step < steps; ++step, place.advance()) {
      auto& right = shared.right[place.stage];
      MBarrier& full = shared.pipeline.full[place.stage];
      shared.pipeline.wait_until_empty(place);
      if (threadIdx.x == 0) {
        mbarrier_arrive_expect_tx(full, right.bytes);
        const auto copy_half = [&](const WeightMaps& weights, int to) {
          right.template copy_of<columns>(weights.matrix(group.number), weights.of(group.number),
                                          static_cast<int>(first_column), step * bulk_k, full, to);
        };
        copy_half(maps.weights, 0);
        copy_half(maps.up, columns);
      }
      rows.read(reinterpret_cast<RowsTile&>(shared.left[place.stage].elements));
      cp_async_commit();
      if (before >= 0) shared.pipeline.template deliver<1>(before);
      before = place.stage;
    }
  });
  if (before >= 0) shared.pipeline.template deliver<0>(before);
}

template <class Stages, class T>
__device__ __forceinline__ void consume_gated(Stages& shared, const GroupTiles<T>& p, int warpgroup) {
  using Shape = typename Stages::Shape;
  const int warp = static_cast<int>(threadIdx.x) % 128 / 32, row = 64 * warpgroup, steps = stages_along(p.k);
  SumsTile& tile = shared.sums[4 * warpgroup + warp];
  RingPlace<Shape::stages> place;
  for_each_tile<gated_columns_of<Shape>>(p, [&](const RowGroup& group, int64_t first_column) {
    if (row >= group.rows) return skip_stages(shared, steps, place);
    float sums[Shape::n / 2];
    multiply_stages(sums, shared, row, steps, place);
    finish_gated_rows(p.gated_out(group), p.gate, sums, tile, row + 16 * warp, first_column,
                      {p.weights.bias(group.number), p.up.bias(group.number)});
  });
}

template <class Shape, class T, class Resources = typename Shape::Resources>
__global__ void __launch_bounds__(Resources::threads, Resources::blocks)
    grouped_gated_warpgroup_kernel(Resources, const __grid_constant__ GroupTiles<T> p,
                                   const __grid_constant__ GroupMaps maps) {
  using Shared = Stages<Shape, T, Major::k>;
  static_assert(sizeof(Shared) <= Resources::shared_bytes);
  Shared& shared = *swizzled_shared<Shared>();
  if (threadIdx.x == 0) shared.pipeline.init(Shape::consuming_warps, copying_warps);
  begin_dependent();
  __syncthreads();  // the mbarriers are there for all
  with_warpgroups<GatedRegisters<Shape>>([&] { produce_gated(shared, p, maps); },
                                         [&](int warpgroup) { consume_gated(shared, p, warpgroup); });
}

// ---- host ----

// Of the rows [group rows, k] that a launch's tiles have.
template <class Shape, class T>
TensorMapArgs rows_map(const GroupTilesArgs& args, const ProductMatrix& left) {
  return BulkOperand<T, Shape::m, Major::k>::map_args(static_cast<const T*>(left.data), left.stride, args.rows,
                                                      args.product.k);
}
// Of a matrix, or several, of weights.
template <class T, Major right_major>
TensorMapArgs weights_map(const void* data, int64_t stride, int64_t n, int64_t k, int64_t matrices) {
  return BulkOperand<T, weight_box, right_major, weight_box>::map_args(static_cast<const T*>(data), stride, n, k,
                                                                       matrices);
}
template <class T, Major right_major>
TensorMapArgs room_map(const GroupTilesArgs& args, const void* room) {
  return weights_map<T, right_major>(room, args.stride, args.product.n, args.product.k, args.end - args.first);
}

// Whether bulk copies can serve the operands; that depends on neither the shape of tile nor which of the 16-bit dtypes.
template <Major right_major>
bool maps_serve(const GroupTilesArgs& args) {
  const auto serves = [](const TensorMapArgs& map) { return why_no_tensor_map(map)[0] == 0; };
  const GroupedArgs& product = args.product;
  const auto rows_serve = [&](const ProductMatrix& left) { return serves(rows_map<Wide, bf16_t>(args, left)); };
  if (product.rows == nullptr && !rows_serve(product.left)) return false;
  if (args.up_left.data != nullptr && !rows_serve(args.up_left)) return false;
  const bool both = product.up.places != nullptr;
  if (args.room == nullptr) return product.weights.maps != nullptr && (!both || product.up.maps != nullptr);
  return serves(room_map<bf16_t, right_major>(args, args.room)) &&
         (!both || serves(room_map<bf16_t, right_major>(args, args.up_room)));
}

template <class Shape, class T, Major right_major>
GroupMaps maps_of(const GroupTilesArgs& args) {
  GroupMaps maps{};
  if (args.product.rows == nullptr) maps.left = make_tensor_map(rows_map<Shape, T>(args, args.product.left));
  if (args.up_left.data != nullptr) maps.up_left = make_tensor_map(rows_map<Shape, T>(args, args.up_left));
  const auto find = [&](WeightMaps& weights, const GroupedWeights& of, const void* room) {
    weights.table = room == nullptr ? static_cast<const unsigned char*>(of.maps) : nullptr;
    if (room != nullptr) weights.room = make_tensor_map(room_map<T, right_major>(args, room));
    weights.first = static_cast<int>(args.first);
  };
  find(maps.weights, args.product.weights, args.room);
  find(maps.up, args.product.up, args.up_room);
  return maps;
}

template <class Shape, class T, Major right_major>
void start(const GroupTilesArgs& args) {
  launch_dependent("grouped_warpgroup", grid_of<Shape>(args.product, Shape::n),
                   grouped_warpgroup_kernel<Shape, T, right_major>, tiles_of<T>(args, 0),
                   maps_of<Shape, T, right_major>(args));
}
template <class Shape, class T>
void start_gated(const GroupTilesArgs& args) {
  launch_dependent("grouped_gated_warpgroup", grid_of<Shape>(args.product, gated_columns_of<Shape>),
                   grouped_gated_warpgroup_kernel<Shape, T>, tiles_of<T>(args, 0), maps_of<Shape, T, Major::k>(args));
}

// Calls body.operator()<Shape, T>().
template <class Body>
void with_shape(const GroupedArgs& product, Body body) {
  const auto with_dtype = [&]<class T>(T) {
    product.group_rows == large_group_rows ? body.template operator()<Wide, T>()
                                           : body.template operator()<Medium, T>();
  };
  product.dtype == DType::bf16 ? with_dtype(bf16_t{}) : with_dtype(f16_t{});
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
bool grouped_tiles_by_wgmma(const GroupTilesArgs& args) {
  using namespace LATHE_CUDA_NAMESPACE;
  if (!multiplies_by_warpgroups() || args.product.k == 0 || !maps_serve<Major::k>(args)) return false;
  with_shape(args.product, [&]<class Shape, class T>() {
    args.product.is_gated() ? start_gated<Shape, T>(args) : start<Shape, T, Major::k>(args);
  });
  return true;
}
template bool grouped_tiles_by_wgmma<DeviceKind::LATHE_CUDA_NAMESPACE>(const GroupTilesArgs&);

template <DeviceKind>
bool grouped_gradient_by_wgmma(const GroupTilesArgs& args) {
  using namespace LATHE_CUDA_NAMESPACE;
  if (!multiplies_by_warpgroups() || args.product.k == 0 || !maps_serve<Major::mn>(args)) return false;
  with_shape(args.product, [&]<class Shape, class T>() { start<Shape, T, Major::mn>(args); });
  return true;
}
template bool grouped_gradient_by_wgmma<DeviceKind::LATHE_CUDA_NAMESPACE>(const GroupTilesArgs&);

template <DeviceKind>
bool make_weight_map(unsigned char* map, const ProductMatrix& weight, int64_t rows, int64_t columns) {
  using namespace LATHE_CUDA_NAMESPACE;
  const TensorMapArgs args = weights_map<bf16_t, Major::k>(weight.data, weight.stride, rows, columns, 1);
  if (!multiplies_by_warpgroups() || why_no_tensor_map(args)[0] != 0) return false;
  const TensorMap made = make_tensor_map(args);
  memcpy(map, &made, sizeof made);
  return true;
}
template bool make_weight_map<DeviceKind::LATHE_CUDA_NAMESPACE>(unsigned char*, const ProductMatrix&, int64_t, int64_t);

}  // namespace lathe::kernels
