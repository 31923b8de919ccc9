// Many rows in groups, each by a weight of its own, as blocks find them: a group is a row of tiles. Blocks stay and
// take tile after tile, since how many there are stands in device memory: a block for each that there might be would
// be as many again as there are experts, and of a band of weights (kernels/matmul/grouped.cpp) nearly all.
#pragma once

#include "kernels/matmul/cuda/grouped.cuh"
#include "kernels/matmul/cuda/operand.cuh"
#include "kernels/matmul/cuda/tile_order.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

template <class T>
struct TileWeights {
  PlacesOf<DensePlace> of;
  const T* room;
  int64_t stride, elements;  // elements: of each in the room
  int first;
  int64_t first_bias;

  __device__ __forceinline__ DenseOperand<T> operand(int number) const {
    if (room != nullptr) return {room + (number - first) * elements, stride, true};
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
  DenseOperand<T> left, up_left;
  int64_t k;
  TileWeights<T> weights, up;
  GateKind gate;
  GroupedOut<T> out;
  T *kept_gate, *kept_up;

  __device__ __forceinline__ KeptGatedEpilogue<T> gated_out(const RowGroup& group) const {
    const GatedEpilogue<T> alone = out.of(group);
    const int64_t first = group.begin * alone.stride;
    return {alone, kept_gate == nullptr ? nullptr : kept_gate + first, kept_up == nullptr ? nullptr : kept_up + first};
  }
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

// ---- host ----

template <class T>
inline GroupTiles<T> tiles_of(const GroupTilesArgs& args, int64_t room_elements) {
  const GroupedArgs& product = args.product;
  const int first = static_cast<int>(args.first);
  const auto weights = [&](const GroupedWeights& of, const void* room) {
    return TileWeights<T>{PlacesOf<DensePlace>(of), static_cast<const T*>(room), args.stride, room_elements, first,
                          args.first_bias};
  };
  return {.groups = RowGroups(product),
          .begins = args.begins,
          .first = first,
          .end = static_cast<int>(args.end),
          .left = dense_operand<T>(product.left),
          .up_left = dense_operand<T>(args.up_left),
          .k = product.k,
          .weights = weights(product.weights, args.room),
          .up = weights(product.up, args.up_room),
          .gate = product.gate,
          .out = GroupedOut<T>(product),
          .kept_gate = static_cast<T*>(args.kept_gate),
          .kept_up = static_cast<T*>(args.kept_up)};
}

// As many blocks as there are places or, where these are fewer, tiles of so many columns.
template <class Shape>
inline dim3 grid_of(const GroupedArgs& product, int64_t columns) {
  const int64_t tiles = product.groups * ((product.n + columns - 1) / columns);
  const int64_t places = int64_t{Shape::Resources::blocks} * multiprocessors();
  return dim3(static_cast<unsigned>(tiles < places ? tiles : places));
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
