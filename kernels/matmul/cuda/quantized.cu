// A few rows times a quantised weight, which is read once, as codes: blocks of 32 columns whose codes become a tile in shared memory.
// Sums are added in the very steps of tile.cuh: the bits are those of the product with the dequantised weight.
//
// That order is one chain along k, in which a step of sixteen waits for the one before: 5 µs at K = 4096, however fast the memory is
// (256 steps of some 33 cycles each, reckoned, not timed).
#include "kernels/matmul/cuda/dense.cuh"
#include "kernels/matmul/cuda/epilogue.cuh"
#include "kernels/matmul/cuda/quantized_types.cuh"
#include "kernels/nf4/device.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

using Shape = TileShape<16, 32, 16, 8, 8, 2>;
using LeftTile = OperandTile<Shape::m, Fastest::k>;
using RightTile = OperandTile<Shape::n, Fastest::k>;
static_assert(RightTile::conflict_free());

constexpr int threads_for_column = Shape::threads / Shape::n;  // each has 16 neighbours along k
static_assert(threads_for_column * 16 == tile_k);
// Scales come in chunks of so many tiles along k, one chunk ahead in registers and the next but one on its way.
constexpr int chunk_steps = 16;
constexpr int scales_of_thread = chunk_steps / threads_for_column;

template <QuantizedFormat format>
constexpr int code_bytes = format == QuantizedFormat::nf4 ? Shape::n* tile_k / 2 : Shape::n* tile_k;  // of a tile

template <class T, QuantizedFormat format>
struct Memory {
  struct Stage {
    T left[LeftTile::elements];
    T right[RightTile::elements];
  } stages[Shape::stages];
  uint8_t codes[Shape::stages][code_bytes<format>];
  float scales[2][chunk_steps][Shape::n];
  Nf4SharedTables tables;
};

template <class T>
struct Product {
  DenseOperand<T> left, left2, right2;
  int64_t k, k2;
  Epilogue<T> epilogue;
  const uint8_t* codes;
  Nf4ScaleArgs nf4_scales;
  int64_t block_size;
  const float* int8_scales;
};

// What a thread has read of the scales of one column and `scales_of_thread` tiles.
struct RawScales {
  float values[scales_of_thread];
  uint8_t codes[scales_of_thread];
};

template <class T, QuantizedFormat format>
struct Reader {
  const Product<T>& p;
  Memory<T, format>& memory;
  int64_t first_column;
  int steps;

  __device__ __forceinline__ int column() const { return static_cast<int>(threadIdx.x) / threads_for_column; }
  __device__ __forceinline__ int part() const { return static_cast<int>(threadIdx.x) % threads_for_column; }

  // Starts the copy of a tile's codes. Columns past the last get zeros.
  __device__ __forceinline__ void begin_codes(int step) const {
    constexpr int column_bytes = code_bytes<format> / Shape::n, pieces = column_bytes / 16;
    const int index = static_cast<int>(threadIdx.x);
    if (index >= Shape::n * pieces) return;
    const int column = index / pieces, piece = index % pieces;
    const bool there = first_column + column < p.epilogue.n;
    const int64_t row_bytes = p.k / tile_k * column_bytes;
    const uint8_t* from =
        p.codes + (there ? (first_column + column) * row_bytes + step * column_bytes + piece * 16 : 0);
    cp_async_16(memory.codes[step % Shape::stages] + column * column_bytes + piece * 16, from, there ? 16 : 0);
  }

  __device__ __forceinline__ RawScales read_scales(int chunk) const {
    RawScales raw = {};
    const int64_t row = first_column + column();
    if (row >= p.epilogue.n) return raw;
    LATHE_UNROLL
    for (int i = 0; i < scales_of_thread; ++i) {
      const int64_t step = chunk * chunk_steps + part() * scales_of_thread + i;
      if (step >= steps) continue;
      if (format == QuantizedFormat::int8) {
        raw.values[i] = p.int8_scales[row * steps + step];
        continue;
      }
      const int64_t block = (row * p.k + step * tile_k) / p.block_size;
      if (p.nf4_scales.absmax != nullptr) {
        raw.values[i] = p.nf4_scales.absmax[block];
      } else {
        raw.values[i] = p.nf4_scales.nested_absmax[block / nf4_nested_elements];
        raw.codes[i] = p.nf4_scales.codes[block];
      }
    }
    return raw;
  }

  __device__ __forceinline__ void store_scales(int chunk, const RawScales& raw) const {
    const bool nested =
        format == QuantizedFormat::nf4 && p.nf4_scales.absmax == nullptr && first_column + column() < p.epilogue.n;
    LATHE_UNROLL
    for (int i = 0; i < scales_of_thread; ++i) {
      float scale = raw.values[i];
      if (nested) {
        const float product = memory.tables.map[raw.codes[i]] * scale;
        scale = product + *p.nf4_scales.offset;
      }
      memory.scales[chunk % 2][part() * scales_of_thread + i][column()] = scale;
    }
  }

  // This thread's 16 weights of a tile, rounded to T.
  __device__ __forceinline__ void dequantize(int step) const {
    const float scale = memory.scales[step / chunk_steps % 2][step % chunk_steps][column()];
    const uint8_t* codes = memory.codes[step % Shape::stages] + threadIdx.x * (code_bytes<format> / Shape::threads);
    T* tile = memory.stages[step % Shape::stages].right;
    float values[16];
    if (format == QuantizedFormat::nf4) {
      const uint2 bytes = load_vector<uint2>(codes);
      const unsigned words[2] = {bytes.x, bytes.y};
      LATHE_UNROLL
      for (int i = 0; i < 16; ++i)  // the first of two has the high half of their byte
        values[i] = memory.tables.values[words[i / 8] >> (i % 8 / 2 * 8 + (i % 2 == 0 ? 4 : 0)) & 15u];
    } else {
      const uint4 bytes = load_vector<uint4>(codes);
      const unsigned words[4] = {bytes.x, bytes.y, bytes.z, bytes.w};
      LATHE_UNROLL
      for (int i = 0; i < 16; ++i)
        values[i] = static_cast<float>(static_cast<int8_t>(words[i / 4] >> (i % 4 * 8) & 255u));
    }
    LATHE_UNROLL
    for (int piece = 0; piece < 2; ++piece) {
      GroupBits<T> bits;
      LATHE_UNROLL
      for (int j = 0; j < piece_elements; ++j)
        bits.elements[j] = from_float<T>(values[piece * piece_elements + j] * scale);
      store_vector(tile + RightTile::place(column(), 2 * part() + piece), bits.vectors[0]);
    }
  }
};

template <class T>
__device__ __forceinline__ void add_stage(TileSums<Shape>& sums, WarpProduct<Shape, LeftTile, RightTile>& product,
                                          const T* stage) {
  product.load(stage, 0);
  LATHE_UNROLL
  for (int step = 0; step < product.steps; ++step) {
    if (step + 1 < product.steps) product.load(stage, step + 1);
    product.template multiply<T>(sums, step);
  }
}

// sums += x · weightᵀ: while a tile is multiplied the next one is dequantised, and seven are on their way.
template <class T, QuantizedFormat format>
__device__ __forceinline__ void multiply_codes(TileSums<Shape>& sums, const Product<T>& p, Memory<T, format>& memory,
                                               int64_t first_column) {
  const Reader<T, format> right{p, memory, first_column, static_cast<int>(p.k / tile_k)};
  DenseReader<Shape, LeftTile, T> left;
  left.start(p.left, 0, p.epilogue.m, p.k);
  const int steps = right.steps;
  for (int step = 0; step < Shape::stages - 1; ++step) {
    if (step < steps) {
      left.read(memory.stages[step].left);
      right.begin_codes(step);
    }
    cp_async_commit();  // one group for each step, empty at the end, so that the wait can count
  }
  const RawScales first = right.read_scales(0);
  RawScales next = right.read_scales(1);
  __syncthreads();  // the tables are there
  right.store_scales(0, first);
  cp_async_wait<Shape::stages - 2>();
  __syncthreads();  // the first tile's codes and scales are there
  right.dequantize(0);
  WarpProduct<Shape, LeftTile, RightTile> product;
  for (int step = 0; step < steps; ++step) {
    cp_async_wait<Shape::stages - 3>();
    __syncthreads();  // this step's tiles and the next one's codes are there for all, and all are done with the previous step's
    const int ahead = step + Shape::stages - 1;
    if (ahead < steps) {
      left.read(memory.stages[ahead % Shape::stages].left);
      right.begin_codes(ahead);
    }
    cp_async_commit();
    if (step + 1 < steps) right.dequantize(step + 1);
    if (step % chunk_steps == chunk_steps / 2) {  // half a chunk after the last use of what is overwritten
      right.store_scales(step / chunk_steps + 1, next);
      next = right.read_scales(step / chunk_steps + 2);
    }
    add_stage(sums, product, memory.stages[step % Shape::stages].left);
  }
}

// sums += lora_t · lora_bᵀ: a tile or a few, one after another.
template <class T, QuantizedFormat format>
__device__ __forceinline__ void multiply_lora(TileSums<Shape>& sums, const Product<T>& p, Memory<T, format>& memory,
                                              int64_t first_column) {
  DenseReader<Shape, LeftTile, T> left;
  DenseReader<Shape, RightTile, T> right;
  left.start(p.left2, 0, p.epilogue.m, p.k2);
  right.start(p.right2, first_column, p.epilogue.n, p.k2);
  WarpProduct<Shape, LeftTile, RightTile> product;
  for (int step = 0; step < tiles_along(p.k2); ++step) {
    __syncthreads();  // all are done with the tiles
    left.read(memory.stages[0].left);
    right.read(memory.stages[0].right);
    cp_async_commit();
    cp_async_wait<0>();
    __syncthreads();  // the tiles are there
    add_stage(sums, product, memory.stages[0].left);
  }
}

template <class T, QuantizedFormat format,
          class Resources =
              BlockResources<Shape::threads, Shape::blocks_at_once, static_cast<int>(sizeof(Memory<T, format>))>>
__global__ void __launch_bounds__(Resources::threads, Resources::blocks)
    quantized_product_kernel(Resources, Product<T> p, Nf4Tables tables) {
  Memory<T, format>& memory = *dynamic_shared<Memory<T, format>>();
  fill_tables(memory.tables, tables);
  const int64_t first_column = int64_t{blockIdx.x} * Shape::n;
  TileSums<Shape> sums;
  multiply_codes(sums, p, memory, first_column);
  multiply_lora(sums, p, memory, first_column);
  finish_tile(p.epilogue, sums, &memory, 0, first_column);
}

template <class T, QuantizedFormat format>
void start(const QuantizedProductCuda& args) {
  const ProductCuda& product = args.product;
  const Product<T> p{dense_operand<T>(product.left),
                     dense_operand<T>(product.left2),
                     dense_operand<T>(product.right2),
                     product.k,
                     product.k2,
                     epilogue_of<T>(product),
                     static_cast<const uint8_t*>(args.codes),
                     args.nf4_scales,
                     args.block_size,
                     args.int8_scales};
  launch("quantized_product", dim3(static_cast<unsigned>((product.n + Shape::n - 1) / Shape::n)),
         quantized_product_kernel<T, format>, p, nf4_tables(args.nf4_scales));
}

}  // namespace

void quantized_product_tiles(const QuantizedProductCuda& args) {
  with_quantized_types(args, [&]<class T, QuantizedFormat format>() { start<T, format>(args); });
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
