// A few rows times quantised weights, which are read once, as codes: a lane decodes those of its own fragments, in
// registers, a stage before they are multiplied. (Decoded into a tile in shared memory for all, and read from there by
// ldmatrix, with 8 KB of codes in flight in a block, a row of nf4 reached 324 GB/s on an H100, of int8 580.) Sums are
// added in the very steps of mainloop.cuh: the bits are those of the product with the dequantised weight.
//
// That order is one chain along k, in which a step of sixteen waits for the one before: 5 µs at K = 4096, however fast
// the memory is (256 steps of some 33 cycles each, reckoned, not timed).
#include "kernels/cuda/dependent_launch.h"
#include "kernels/cuda/ptx/grid_dependency.h"
#include "kernels/matmul/cuda/epilogue.cuh"
#include "kernels/matmul/cuda/few_rows.cuh"
#include "kernels/matmul/cuda/operand.cuh"
#include "kernels/matmul/weights/decode.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

using Shape = ProductShape<16, 32, 16, 8, 1, 2>;  // the stages are these:
template <class T>
using LeftTile = OperandTile<T, Shape::m, Major::k>;
template <class T>
using LoraStage = Stage<Shape, T, Major::k, Major::k>;

constexpr int threads_of_column = Shape::threads / Shape::n;
static_assert(threads_of_column == 4, "as a fragment of the right operand has them");
// Scales come in chunks of so many stages along k, one chunk ahead in registers and the next but one on its way.
constexpr int chunk_steps = 16;
constexpr int scales_of_thread = chunk_steps / threads_of_column;

// Of a column's codes in a stage. Lanes of eight columns read two bytes of eight each: padded, int8 meets no bank
// twice.
template <class Codes>
constexpr int column_bytes = block_k* Codes::bits / 8;
template <class Codes>
constexpr int column_pitch = column_bytes<Codes> + (Codes::bits == 8 ? 16 : 0);
// 20 KB of codes in flight in a block, of which an H100 has room for three.
template <class Codes>
constexpr int stage_count = Codes::bits == 8 ? 13 : 20;

template <class T, class Codes>
struct Memory {
  static constexpr int stages = stage_count<Codes>;
  LeftTile<T> left[stages];
  alignas(16) uint8_t codes[stages][Shape::n * column_pitch<Codes>];
  float scales[2][chunk_steps][Shape::n];
  LoraStage<T> lora;
  typename Codes::Shared shared;
};

template <class T, class Codes>
struct Product {
  DenseOperand<T> left, left2, right2;
  int64_t k, k2;
  Epilogue<T> epilogue;
  Codes codes;
};
// The tiles of several, beside each other in the grid.
template <class T, class Codes, int count>
struct Products {
  Product<T, Codes> of[count];
  unsigned end[count];  // of its tiles
};

// A warp's right operand of a stage: of its eight columns, of sixteen along k each.
template <class T>
struct WeightFragments {
  BFragment<T> at[block_k / 16];
};

// What a thread does for the weight: copies codes, brings scales, and decodes its part of the fragments.
template <class T, class Codes>
class WeightReader {
 public:
  struct RawScales {
    typename Codes::RawScale at[scales_of_thread];
  };

  __device__ __forceinline__ WeightReader(const Product<T, Codes>& p, Memory<T, Codes>& memory, int64_t first_column)
      : p_(p), memory_(memory), first_column_(first_column) {}
  __device__ __forceinline__ int steps() const { return static_cast<int>(p_.k / block_k); }

  // Starts the copy of a step's codes into a stage. Columns past the last get zeros.
  __device__ __forceinline__ void copy_codes(int step, int stage) const {
    constexpr int vectors = column_bytes<Codes> / 16;
    const int index = static_cast<int>(threadIdx.x);
    if (index >= Shape::n * vectors) return;
    const int column = index / vectors, vector = index % vectors;
    const bool there = first_column_ + column < p_.epilogue.n;
    const int64_t row_bytes = p_.k / block_k * column_bytes<Codes>;
    const uint8_t* from =
        p_.codes.codes + (there ? (first_column_ + column) * row_bytes + step * column_bytes<Codes> + vector * 16 : 0);
    cp_async_16(memory_.codes[stage] + column * column_pitch<Codes> + vector * 16, from, there ? 16 : 0);
  }

  __device__ __forceinline__ RawScales read_scales(int chunk) const {
    RawScales raw = {};
    const int64_t row = first_column_ + column();
    if (row >= p_.epilogue.n) return raw;
    LATHE_UNROLL
    for (int i = 0; i < scales_of_thread; ++i) {
      const int64_t step = chunk * chunk_steps + part() * scales_of_thread + i;
      if (step < steps()) raw.at[i] = p_.codes.read_scale(row, step * block_k, p_.k);
    }
    return raw;
  }

  __device__ __forceinline__ void store_scales(int chunk, const RawScales& raw) const {
    const bool there = first_column_ + column() < p_.epilogue.n;
    LATHE_UNROLL
    for (int i = 0; i < scales_of_thread; ++i) {
      const float scale = there ? p_.codes.scale(raw.at[i], memory_.shared) : 0.0f;
      memory_.scales[chunk % 2][part() * scales_of_thread + i][column()] = scale;
    }
  }

  // This thread's weights of a step, rounded to T: of a column of the warp's, of every eight along k the pair of its
  // quarter.
  __device__ __forceinline__ void decode(WeightFragments<T>& fragments, int step, int stage) const {
    const float scale = memory_.scales[step / chunk_steps % 2][step % chunk_steps][column()];
    const typename Codes::Pairs pairs(memory_.codes[stage] + column() * column_pitch<Codes>, part());
    LATHE_UNROLL
    for (int eight = 0; eight < block_k / 8; ++eight) {
      const float2 two = pairs.at(eight, memory_.shared);
      fragments.at[eight / 2].registers[eight % 2] = pack_pair(two.x * scale, two.y * scale, T{});
    }
  }

 private:
  __device__ __forceinline__ int column() const { return static_cast<int>(threadIdx.x) / threads_of_column; }
  __device__ __forceinline__ int part() const { return static_cast<int>(threadIdx.x) % threads_of_column; }

  const Product<T, Codes>& p_;
  Memory<T, Codes>& memory_;
  int64_t first_column_;
};

template <class T>
__device__ __forceinline__ void add_step(Shape::Sums& sums, const LeftTile<T>& left,
                                         const WeightFragments<T>& weights) {
  const AReader<LeftTile<T>, Major::k> reader(0);
  LATHE_UNROLL
  for (int step = 0; step < block_k / 16; ++step) {
    AFragment<T> rows;
    reader.load(rows, left, 0, 16 * step);
    mma(sums.at[0][0], rows, weights.at[step]);
  }
}

// sums += x · weightᵀ: while a step is multiplied the next one is decoded, and the others are on their way.
template <class T, class Codes>
__device__ __forceinline__ void multiply_codes(Shape::Sums& sums, const Product<T, Codes>& p, Memory<T, Codes>& memory,
                                               int64_t first_column) {
  constexpr int stages = Memory<T, Codes>::stages;
  const WeightReader<T, Codes> right(p, memory, first_column);
  OperandReader<LeftTile<T>, Major::k, Shape::threads> left;
  left.start(p.left, 0, p.epilogue.m, p.k);
  const int steps = right.steps();
  int filling = 0;  // the stage of the next step to be filled
  const auto fill = [&](int step) {
    left.read(memory.left[filling]);
    right.copy_codes(step, filling);
    filling = filling + 1 == stages ? 0 : filling + 1;
  };
  const Pipeline<stages> pipeline;
  pipeline.start(steps, fill);
  const auto first = right.read_scales(0);
  auto next = right.read_scales(1);
  __syncthreads();  // what decoding looks up is there
  right.store_scales(0, first);
  pipeline.wait();  // for the first step's codes, and the scales are there
  WeightFragments<T> weights;
  right.decode(weights, 0, 0);
  int reading = 0;
#pragma unroll 2  // the two sets of fragments change places
  for (int step = 0; step < steps; ++step) {
    pipeline.template wait<1>();  // this step's rows and the next one's codes
    pipeline.fill_ahead(step, steps, fill);
    const int after = reading + 1 == stages ? 0 : reading + 1;
    WeightFragments<T> decoded = weights;
    if (step + 1 < steps) right.decode(decoded, step + 1, after);
    if (step % chunk_steps == chunk_steps / 2) {  // half a chunk after the last use of what is overwritten
      right.store_scales(step / chunk_steps + 1, next);
      next = right.read_scales(step / chunk_steps + 2);
    }
    add_step(sums, memory.left[reading], weights);
    weights = decoded;
    reading = after;
  }
}

// sums += lora_t · lora_bᵀ: a stage or a few, one after another.
template <class T, class Codes>
__device__ __forceinline__ void multiply_lora(Shape::Sums& sums, const Product<T, Codes>& p, Memory<T, Codes>& memory,
                                              int64_t first_column) {
  LoraStage<T>& stage = memory.lora;
  OperandReader<decltype(stage.left), Major::k, Shape::threads> left;
  OperandReader<decltype(stage.right), Major::k, Shape::threads> right;
  left.start(p.left2, 0, p.epilogue.m, p.k2);
  right.start(p.right2, first_column, p.epilogue.n, p.k2);
  WarpProduct<LoraStage<T>> product;
  const Pipeline<1> pipeline;
  const int steps = stages_along(p.k2);
  for (int step = 0; step < steps; ++step) {
    pipeline.advance(step, steps, [&](int) {
      left.read(stage.left);
      right.read(stage.right);
    });
    product.load(stage, 0);
    LATHE_UNROLL
    for (int k_step = 0; k_step < product.steps; ++k_step) {
      if (k_step + 1 < product.steps) product.load(stage, k_step + 1);
      product.multiply(sums, k_step);
    }
  }
}

template <class T, class Codes, int count,
          class Resources = BlockResources<Shape::threads, Shape::blocks, static_cast<int>(sizeof(Memory<T, Codes>))>>
__global__ void __launch_bounds__(Resources::threads, Resources::blocks)
    quantized_product_kernel(Resources, const __grid_constant__ Products<T, Codes, count> all) {
  Memory<T, Codes>& memory = *dynamic_shared<Memory<T, Codes>>();
  int index = 0;
  unsigned before = 0;
  while (index + 1 < count && blockIdx.x >= all.end[index]) before = all.end[index++];
  const Product<T, Codes>& p = all.of[index];
  const int64_t first_column = int64_t{blockIdx.x - before} * Shape::n, row_bytes = p.k / block_k * column_bytes<Codes>;
  launch_dependents();
  prefetch_rows<Shape::n, Shape::threads>(DenseOperand<uint8_t>{p.codes.codes, row_bytes, true}, first_column,
                                          p.epilogue.n, row_bytes);
  grid_dependency_wait();
  p.codes.fill(memory.shared);
  Shape::Sums sums;
  multiply_codes(sums, p, memory, first_column);
  multiply_lora(sums, p, memory, first_column);
  finish_tile<Shape>(p.epilogue, sums, &memory, 0, first_column);
}

template <class T, class Codes>
Product<T, Codes> product_of(const QuantizedProductArgs& args) {
  const ProductArgs& product = args.product;
  return {dense_operand<T>(product.left),
          dense_operand<T>(product.left2),
          dense_operand<T>(product.right2),
          product.k,
          product.k2,
          epilogue_of<T>(product),
          Codes(args)};
}

template <class T, class Codes, int count>
void start(Products<T, Codes, count> all) {
  unsigned tiles = 0;
  for (int i = 0; i < count; ++i)
    all.end[i] = tiles += static_cast<unsigned>((all.of[i].epilogue.n + Shape::n - 1) / Shape::n);
  if (tiles > 0) launch_dependent("quantized_product", dim3(tiles), quantized_product_kernel<T, Codes, count>, all);
}

template <class T, class Codes>
void start(const QuantizedProducts& products) {
  if (products.count == 1) return start<T, Codes, 1>({{product_of<T, Codes>(products.of[0])}, {}});
  static_assert(joined_most == 3);
  Products<T, Codes, joined_most> all{{product_of<T, Codes>(products.of[0]), product_of<T, Codes>(products.of[1]),
                                       product_of<T, Codes>(products.of[products.count - 1])},
                                      {}};
  if (products.count == 2) all.of[2].epilogue.n = 0;
  start<T, Codes, joined_most>(all);
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
void quantized_product_tiles(const QuantizedProducts& products) {
  with_codes(products.of[0], [&]<class T, class Codes>(const Codes&) { start<T, Codes>(products); });
}
template void quantized_product_tiles<DeviceKind::LATHE_CUDA_NAMESPACE>(const QuantizedProducts&);

}  // namespace lathe::kernels
