// A few rows times a quantised weight, which is read once, as codes: blocks of 32 columns whose codes become a tile in
// shared memory. Sums are added in the very steps of mainloop.cuh: the bits are those of the product with the
// dequantised weight.
//
// That order is one chain along k, in which a step of sixteen waits for the one before: 5 µs at K = 4096, however fast
// the memory is (256 steps of some 33 cycles each, reckoned, not timed).
#include "kernels/matmul/cuda/epilogue.cuh"
#include "kernels/matmul/cuda/operand.cuh"
#include "kernels/matmul/weights/decode.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

using Shape = ProductShape<16, 32, 16, 8, 8, 2>;
template <class T>
using WeightStage = Stage<Shape, T, Major::k, Major::k>;

constexpr int threads_of_column = Shape::threads / Shape::n;  // each has 16 neighbours along k
constexpr int thread_codes = block_k / threads_of_column;
static_assert(thread_codes == 16);
// Scales come in chunks of so many stages along k, one chunk ahead in registers and the next but one on its way.
constexpr int chunk_steps = 16;
constexpr int scales_of_thread = chunk_steps / threads_of_column;

template <class Codes>
constexpr int column_bytes = block_k* Codes::bits / 8;  // of a stage

template <class T, class Codes>
struct Memory {
  WeightStage<T> stages[Shape::stages];
  uint8_t codes[Shape::stages][Shape::n * column_bytes<Codes>];
  float scales[2][chunk_steps][Shape::n];
  typename Codes::Shared shared;
};

template <class T, class Codes>
struct Product {
  DenseOperand<T> left, left2, right2;
  int64_t k, k2;
  Epilogue<T> epilogue;
  Codes codes;
};

// What a thread does for the weight: copies codes, brings scales, decodes 16 neighbours of a column along k.
template <class T, class Codes>
class WeightReader {
  using Tile = decltype(WeightStage<T>::right);

 public:
  struct RawScales {
    typename Codes::RawScale at[scales_of_thread];
  };

  __device__ __forceinline__ WeightReader(const Product<T, Codes>& p, Memory<T, Codes>& memory, int64_t first_column)
      : p_(p), memory_(memory), first_column_(first_column) {}
  __device__ __forceinline__ int steps() const { return static_cast<int>(p_.k / block_k); }

  // Starts the copy of a stage's codes. Columns past the last get zeros.
  __device__ __forceinline__ void copy_codes(int step) const {
    constexpr int vectors = column_bytes<Codes> / 16;
    const int index = static_cast<int>(threadIdx.x);
    if (index >= Shape::n * vectors) return;
    const int column = index / vectors, vector = index % vectors;
    const bool there = first_column_ + column < p_.epilogue.n;
    const int64_t row_bytes = p_.k / block_k * column_bytes<Codes>;
    const uint8_t* from =
        p_.codes.codes + (there ? (first_column_ + column) * row_bytes + step * column_bytes<Codes> + vector * 16 : 0);
    cp_async_16(memory_.codes[step % Shape::stages] + column * column_bytes<Codes> + vector * 16, from, there ? 16 : 0);
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

  // This thread's weights of a stage, rounded to T.
  __device__ __forceinline__ void dequantize(int step) const {
    static_assert(weight_writes_conflict_free);
    const float scale = memory_.scales[step / chunk_steps % 2][step % chunk_steps][column()];
    uint32_t words[thread_codes * Codes::bits / 32];
    load_words(words, memory_.codes[step % Shape::stages] + threadIdx.x * sizeof words);
    Tile& tile = memory_.stages[step % Shape::stages].right;
    LATHE_UNROLL
    for (int vector = 0; vector < 2; ++vector) {
      GroupBits<T> bits;
      LATHE_UNROLL
      for (int j = 0; j < vector_elements<T>; ++j)
        bits.elements[j] = from_float<T>(Codes::value(words, vector * vector_elements<T> + j, memory_.shared) * scale);
      store_vector(tile.elements + Tile::offset(column(), part() * thread_codes + vector * vector_elements<T>),
                   bits.vectors[0]);
    }
  }

 private:
  static constexpr bool weight_writes_conflict_free =
      bank_passes(16, [](int lane) {
        return Tile::offset(lane / threads_of_column, lane % threads_of_column * thread_codes) * 2;
      }) == 1;

  __device__ __forceinline__ int column() const { return static_cast<int>(threadIdx.x) / threads_of_column; }
  __device__ __forceinline__ int part() const { return static_cast<int>(threadIdx.x) % threads_of_column; }

  const Product<T, Codes>& p_;
  Memory<T, Codes>& memory_;
  int64_t first_column_;
};

template <class Stage>
__device__ __forceinline__ void add_stage(Shape::Sums& sums, WarpProduct<Stage>& product, const Stage& stage) {
  product.load(stage, 0);
  LATHE_UNROLL
  for (int step = 0; step < product.steps; ++step) {
    if (step + 1 < product.steps) product.load(stage, step + 1);
    product.multiply(sums, step);
  }
}

// sums += x · weightᵀ: while a stage is multiplied the next one is dequantised, and the others are on their way.
template <class T, class Codes>
__device__ __forceinline__ void multiply_codes(Shape::Sums& sums, const Product<T, Codes>& p, Memory<T, Codes>& memory,
                                               int64_t first_column) {
  const WeightReader<T, Codes> right(p, memory, first_column);
  OperandReader<decltype(WeightStage<T>::left), Major::k, Shape::threads> left;
  left.start(p.left, 0, p.epilogue.m, p.k);
  const int steps = right.steps();
  const auto fill = [&](int step) {
    left.read(memory.stages[step % Shape::stages].left);
    right.copy_codes(step);
  };
  const Pipeline<Shape::stages> pipeline;
  pipeline.start(steps, fill);
  const auto first = right.read_scales(0);
  auto next = right.read_scales(1);
  __syncthreads();  // what decoding looks up is there
  right.store_scales(0, first);
  pipeline.wait();  // for the first stage's codes, and the scales are there
  right.dequantize(0);
  WarpProduct<WeightStage<T>> product;
  for (int step = 0; step < steps; ++step) {
    pipeline.wait<1>();  // this step's tiles and the next one's codes
    pipeline.fill_ahead(step, steps, fill);
    if (step + 1 < steps) right.dequantize(step + 1);
    if (step % chunk_steps == chunk_steps / 2) {  // half a chunk after the last use of what is overwritten
      right.store_scales(step / chunk_steps + 1, next);
      next = right.read_scales(step / chunk_steps + 2);
    }
    add_stage(sums, product, memory.stages[step % Shape::stages]);
  }
}

// sums += lora_t · lora_bᵀ: a stage or a few, one after another.
template <class T, class Codes>
__device__ __forceinline__ void multiply_lora(Shape::Sums& sums, const Product<T, Codes>& p, Memory<T, Codes>& memory,
                                              int64_t first_column) {
  WeightStage<T>& stage = memory.stages[0];
  OperandReader<decltype(stage.left), Major::k, Shape::threads> left;
  OperandReader<decltype(stage.right), Major::k, Shape::threads> right;
  left.start(p.left2, 0, p.epilogue.m, p.k2);
  right.start(p.right2, first_column, p.epilogue.n, p.k2);
  WarpProduct<WeightStage<T>> product;
  const Pipeline<1> pipeline;
  const int steps = stages_along(p.k2);
  for (int step = 0; step < steps; ++step) {
    pipeline.advance(step, steps, [&](int) {
      left.read(stage.left);
      right.read(stage.right);
    });
    add_stage(sums, product, stage);
  }
}

template <class T, class Codes,
          class Resources = BlockResources<Shape::threads, Shape::blocks, static_cast<int>(sizeof(Memory<T, Codes>))>>
__global__ void __launch_bounds__(Resources::threads, Resources::blocks)
    quantized_product_kernel(Resources, Product<T, Codes> p) {
  Memory<T, Codes>& memory = *dynamic_shared<Memory<T, Codes>>();
  p.codes.fill(memory.shared);
  const int64_t first_column = int64_t{blockIdx.x} * Shape::n;
  Shape::Sums sums;
  multiply_codes(sums, p, memory, first_column);
  multiply_lora(sums, p, memory, first_column);
  finish_tile<Shape>(p.epilogue, sums, &memory, 0, first_column);
}

template <class T, class Codes>
void start(const ProductArgs& args, const Codes& codes) {
  const Product<T, Codes> p{dense_operand<T>(args.left),
                            dense_operand<T>(args.left2),
                            dense_operand<T>(args.right2),
                            args.k,
                            args.k2,
                            epilogue_of<T>(args),
                            codes};
  launch("quantized_product", dim3(static_cast<unsigned>((args.n + Shape::n - 1) / Shape::n)),
         quantized_product_kernel<T, Codes>, p);
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
void quantized_product_tiles(const QuantizedProductArgs& args) {
  with_codes(args, [&]<class T>(const auto& codes) { start<T>(args.product, codes); });
}
template void quantized_product_tiles<DeviceKind::LATHE_CUDA_NAMESPACE>(const QuantizedProductArgs&);

}  // namespace lathe::kernels
