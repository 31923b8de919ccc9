// Products of f32 matrices in tiles (f32_mainloop.cuh), with the bits of a CPU with fused multiply-adds. The shape of
// tile follows the extents and the card; the bits of an element do not. Where there are few tiles, each chain of theirs
// is another block's, and a second launch adds the chains in order.
#include "kernels/cuda/bounds.h"
#include "kernels/cuda/launch.h"
#include "kernels/matmul/cuda/epilogue.cuh"
#include "kernels/matmul/cuda/f32_mainloop.cuh"
#include "kernels/matmul/cuda/tile_order.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

// All shapes there are, of 128 threads: m, n, a thread's m and n, stages, blocks on a multiprocessor of sm_80, and what
// is issued for a step. The widest is best by far where there are many; the others are there to give each
// multiprocessor as much to do as its neighbour where there are few.
using Tile128 = F32Shape<64, 128, 8, 8, 2, 1, 2430>;
using Tile96 = F32Shape<64, 96, 8, 6, 3, 1, 1900>;
using Tile64 = F32Shape<64, 64, 8, 4, 3, 2, 1300>;
using Tile48 = F32Shape<64, 48, 4, 6, 3, 2, 1080>;

constexpr Major left_major(ProductLayout layout) {
  return layout == ProductLayout::columns_plain ? Major::mn : Major::k;
}
constexpr Major right_major(ProductLayout layout) { return layout == ProductLayout::rows_rows ? Major::k : Major::mn; }

struct Pair {
  F32Operand left, right;
  int64_t k;
};

struct Product {
  Pair pairs[2];  // the weight, then LoRA (k = 0: none)
  Epilogue<float> epilogue;
};

// What fills stages: steps of the first pair along its k, then of the second.
template <class Shape, ProductLayout layout>
class StageSource {
 public:
  __device__ __forceinline__ StageSource(const Product& p, const Pair& first, int64_t first_row, int64_t first_column)
      : p_(p), first_row_(first_row), first_column_(first_column), left_of_first_(f32_steps_along(first.k)) {
    start(left_of_first_ > 0 ? first : p.pairs[1]);
  }
  __device__ __forceinline__ void copy(int part, typename Shape::Stage& stage) {
    left_.read(stage.left, part);
    right_.read(stage.right, part);
  }
  __device__ __forceinline__ void advance() {
    if (--left_of_first_ == 0) {
      __syncwarp();  // keeps the branch one: as selections of either pair this would cost a tenth of a step
      start(p_.pairs[1]);
    } else {
      left_.advance();
      right_.advance();
    }
  }

 private:
  __device__ __forceinline__ void start(const Pair& pair) {
    left_.start(pair.left, first_row_, p_.epilogue.m, pair.k);
    right_.start(pair.right, first_column_, p_.epilogue.n, pair.k);
  }

  const Product& p_;
  int64_t first_row_, first_column_;
  int left_of_first_;  // steps
  F32Reader<typename Shape::Left, left_major(layout), Shape::threads> left_;
  F32Reader<typename Shape::Right, right_major(layout), Shape::threads> right_;
};

// A block's tile of the product, whose first pair is `first` and whose second one has k2. Nobody reads or writes shared
// memory any more; the same on return.
template <class Shape, ProductLayout layout>
__device__ __forceinline__ void multiply_tile(const Product& p, const Pair& first, int64_t k2,
                                              const Epilogue<float>& epilogue, int64_t first_row,
                                              int64_t first_column) {
  auto& memory = *dynamic_shared<typename Shape::Memory>();
  StageSource<Shape, layout> source(p, first, first_row, first_column);
  multiply_f32_tile<Shape>(memory, first.k, k2, source);
  __syncthreads();  // the totals are there
#pragma unroll 1
  for (int i = threadIdx.x; i < Shape::m * (Shape::n / 8); i += Shape::threads) {
    const int row = i / (Shape::n / 8), column = i % (Shape::n / 8) * 8;
    if (first_row + row >= epilogue.m) break;
    finish_eight(epilogue, memory.totals, row, column, first_row, first_column);
  }
  __syncthreads();  // and have been read
}

// Where chains that are blocks of their own leave their sums: of rows of the left operand, not of a weight's gradient.
struct ChainSums {
  float* data;     // [count, m, stride]; null: a block has all chains of its tile
  int64_t stride;  // a multiple of four
  int count;
};

template <class Shape, ProductLayout layout, class Resources = typename Shape::Resources>
__global__ void __launch_bounds__(Resources::threads, Resources::blocks)
    product_f32_kernel(Resources, Product p, ChainSums chains) {
  int64_t first_row, first_column;
  find_tile<Shape>(blockIdx.x, p.epilogue.m, p.epilogue.n, first_row, first_column);
  Pair first = p.pairs[0];
  int64_t k2 = p.pairs[1].k;
  Epilogue<float> epilogue = p.epilogue;
  if (chains.data != nullptr) {
    const int64_t begin = int64_t{blockIdx.y} * f32_chain;
    first.left.data += begin;
    first.right.data += layout == ProductLayout::rows_rows ? begin : begin * first.right.stride;
    first.k = first.k - begin < f32_chain ? first.k - begin : f32_chain;
    if (static_cast<int>(blockIdx.y) + 1 < chains.count) k2 = 0;
    epilogue.scale = 1.0f;
    epilogue.bias.data = epilogue.residual.data = nullptr;
    epilogue.out = {chains.data + blockIdx.y * p.epilogue.m * chains.stride, chains.stride, DType::f32};
  }
  multiply_tile<Shape, layout>(p, first, k2, epilogue, first_row, first_column);
}

// Adds them in order, and finishes the product: a thread has four neighbours of a row.
__global__ void __launch_bounds__(128) join_chains_f32_kernel(Epilogue<float> epilogue, ChainSums chains) {
  const unsigned index = blockIdx.x * 128 + threadIdx.x, fours = static_cast<unsigned>(chains.stride / 4);
  const int64_t row = index / fours, column = int64_t{index % fours} * 4, next = epilogue.m * chains.stride;
  if (row >= epilogue.m) return;
  const float* from = chains.data + row * chains.stride + column;
  const float4 begin = load_vector<float4>(from);
  float totals[4] = {begin.x, begin.y, begin.z, begin.w};
#pragma unroll 4
  for (int c = 1; c < chains.count; ++c) {
    const float4 sum = load_vector<float4>(from += next);
    totals[0] += sum.x, totals[1] += sum.y, totals[2] += sum.z, totals[3] += sum.w;
  }
  finish(epilogue, row, column, totals);
}

// The gradient of a weight: a sum for each sequence, added to the total that lies in out.
template <class Shape, class Resources = typename Shape::Resources>
__global__ void __launch_bounds__(Resources::threads, Resources::blocks)
    sequences_f32_kernel(Resources, Product p, SequenceBounds bounds) {
  int64_t first_row, first_column;
  find_tile<Shape>(blockIdx.x, p.epilogue.m, p.epilogue.n, first_row, first_column);
  for (int s = 0; s < bounds.count; ++s) {
    const int64_t begin = bounds.at[s], tokens = bounds.at[s + 1] - begin;
    if (tokens == 0) continue;
    const F32Operand &left = p.pairs[0].left, &right = p.pairs[0].right;
    const Pair part{{left.data + begin * left.stride, left.stride, left.aligned},
                    {right.data + begin * right.stride, right.stride, right.aligned},
                    tokens};
    multiply_tile<Shape, ProductLayout::columns_plain>(p, part, 0, p.epilogue, first_row, first_column);
  }
}

Product product_of(const ProductArgs& args) {
  const auto operand = [](const ProductMatrix& matrix) {
    const float* data = static_cast<const float*>(matrix.data);
    return F32Operand{data, matrix.stride, rows_aligned(data, matrix.stride)};
  };
  return {{{operand(args.left), operand(args.right), args.k}, {operand(args.left2), operand(args.right2), args.k2}},
          epilogue_of<float>(args)};
}

// ---- what is launched ----

// What a scheduler of the busiest multiprocessor issues for all its tiles, a warp of each to a scheduler, with `chains`
// blocks to a tile.
template <class Shape>
int64_t time_of(const ProductArgs& args, int64_t chains) {
  const int64_t at_once = multiprocessors(), blocks = count_tiles<Shape>(args.m, args.n) * chains;
  return (blocks + at_once - 1) / at_once * Shape::issued * (chains > 1 ? f32_chain_steps : f32_steps_along(args.k));
}

// call.operator()<Shape>() of the shape that takes least.
template <class Call>
auto with_best_shape(const ProductArgs& args, int64_t chains, const Call& call) {
  const int64_t of_128 = time_of<Tile128>(args, chains), of_96 = time_of<Tile96>(args, chains),
                of_64 = time_of<Tile64>(args, chains), of_48 = time_of<Tile48>(args, chains);
  const int64_t least_wide = of_128 < of_96 ? of_128 : of_96, least_narrow = of_64 < of_48 ? of_64 : of_48;
  if (least_wide <= least_narrow)
    return of_128 <= of_96 ? call.template operator()<Tile128>() : call.template operator()<Tile96>();
  return of_64 <= of_48 ? call.template operator()<Tile64>() : call.template operator()<Tile48>();
}

int64_t least_time(const ProductArgs& args, int64_t chains) {
  return with_best_shape(args, chains, [&]<class Shape>() { return time_of<Shape>(args, chains); });
}

// A second launch and its bytes, 3 µs, as instructions of a scheduler.
constexpr int64_t joining_time = 5000;
constexpr int64_t most_room = int64_t{4} << 20;  // floats

ChainSums chain_sums(const ProductArgs& args, float* room) {
  return {room, (args.n + 3) / 4 * 4, static_cast<int>((args.k + f32_chain - 1) / f32_chain)};
}

// Floats for the sums of chains, where it is worth while to have blocks for them; otherwise 0.
int64_t room_for_chains(const ProductArgs& args) {
  const ChainSums chains = chain_sums(args, nullptr);
  const int64_t floats = chains.count * args.m * chains.stride;
  if (args.layout == ProductLayout::columns_plain || chains.count < 2 || floats > most_room) return 0;
  return least_time(args, chains.count) + joining_time < least_time(args, 1) ? floats : 0;
}

template <ProductLayout layout>
void start(const ProductArgs& args, float* room) {
  const Product product = product_of(args);
  const ChainSums chains = chain_sums(args, room);
  const int blocks_of_tile = room != nullptr ? chains.count : 1;
  with_best_shape(args, blocks_of_tile, [&]<class Shape>() {
    const dim3 grid(static_cast<unsigned>(count_tiles<Shape>(args.m, args.n)), static_cast<unsigned>(blocks_of_tile));
    if constexpr (layout == ProductLayout::columns_plain) {
      for_each_launch(args.cu_seqlens, args.sequences, [&](const SequenceBounds& bounds) {
        launch("product_of_sequences_f32", grid, sequences_f32_kernel<Shape>, product, bounds);
      });
    } else {
      launch("product_f32", grid, product_f32_kernel<Shape, layout>, product, chains);
    }
  });
  if (room == nullptr) return;
  const int64_t threads = args.m * (chains.stride / 4);
  launch({.name = "join_chains_f32", .grid = dim3(static_cast<unsigned>((threads + 127) / 128)), .block = dim3(128)},
         join_chains_f32_kernel, product.epilogue, chains);
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
int64_t product_tiles_f32_room(const ProductArgs& args) {
  return LATHE_CUDA_NAMESPACE::room_for_chains(args);
}
template int64_t product_tiles_f32_room<DeviceKind::LATHE_CUDA_NAMESPACE>(const ProductArgs&);

template <DeviceKind>
void product_tiles_f32(const ProductArgs& args, float* room) {
  using namespace LATHE_CUDA_NAMESPACE;
  switch (args.layout) {
    case ProductLayout::rows_rows: return start<ProductLayout::rows_rows>(args, room);
    case ProductLayout::rows_plain: return start<ProductLayout::rows_plain>(args, room);
    case ProductLayout::columns_plain: return start<ProductLayout::columns_plain>(args, room);
  }
}
template void product_tiles_f32<DeviceKind::LATHE_CUDA_NAMESPACE>(const ProductArgs&, float*);

}  // namespace lathe::kernels
