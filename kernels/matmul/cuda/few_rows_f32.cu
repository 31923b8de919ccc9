// A few rows of f32 times a weight in codes, decoded in registers. A warp takes a chain of 32 columns, one to a lane:
// eight chains are under way in a block, where a tile of 64 rows would walk along k alone, with few of its threads at
// work for a row.
#include "kernels/matmul/cuda/few_rows_f32.cuh"
#include "kernels/matmul/cuda/quantized.h"
#include "kernels/matmul/weights/decode.cuh"
#include "kernels/matmul/weights/ggml/cuda/bodies.h"
#include "kernels/matmul/weights/ggml/cuda/decode.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

constexpr int warps = 8, threads = warps * 32, columns = 32;

// ---- where a lane's weights come from ----
//
// begin(k, end) starts a chain; of every `step` along it next<part>(weights) then brings sixteen after sixteen.

constexpr int part_weights = 16;

// Codes, a sector or two of a lane's own row at a time, the next ones on their way.
template <class Codes>
class CodedWeights {
 public:
  static constexpr int step = 64;
  struct Argument {
    Codes codes;
    int64_t n, k;
  };
  using Memory = typename Codes::Shared;

  __device__ __forceinline__ CodedWeights(const Argument& weight, Memory& memory, int64_t first_column)
      : weight_(weight), shared_(memory), row_(first_column + static_cast<int64_t>(threadIdx.x % 32)) {}

  __device__ __forceinline__ void begin(int64_t first_k, int64_t end_k) {
    next_k_ = first_k, end_k_ = end_k;
    load();
  }
  template <int part>
  __device__ __forceinline__ void next(float (&weights)[part_weights]) {
    if constexpr (part == 0) {
      LATHE_UNROLL
      for (int i = 0; i < word_count; ++i) own_words_[i] = words_[i];
      own_scale_ = weight_.codes.scale(scale_, shared_);
      load();
    }
    LATHE_UNROLL
    for (int i = 0; i < part_weights; ++i)
      weights[i] = Codes::value(own_words_, part * part_weights + i, shared_) * own_scale_;
  }

 private:
  __device__ __forceinline__ void load() {
    if (next_k_ >= end_k_ || row_ >= weight_.n) return;
    load_words(words_, weight_.codes.codes + (row_ * weight_.k + next_k_) * Codes::bits / 8);
    scale_ = weight_.codes.read_scale(row_, next_k_, weight_.k);
    next_k_ += step;
  }

  const Argument& weight_;
  const Memory& shared_;
  int64_t row_, next_k_ = 0, end_k_ = 0;
  static constexpr int word_count = step * Codes::bits / 32;
  uint32_t words_[word_count] = {}, own_words_[word_count];
  typename Codes::RawScale scale_ = {};
  float own_scale_ = 0.0f;
};

// Tiles of ggml's blocks. The format is looked at for every sixteen weights, which costs little beside their decoding
// and makes one kernel of all.
class TileWeights {
 public:
  static constexpr int step = ggml::stage_neighbours;
  static_assert(columns == ggml::tile_rows_on_devices);
  struct Argument {
    GgmlTiles tiles;
    int64_t stages;
  };
  struct Memory {};

  __device__ __forceinline__ TileWeights(const Argument& weight, Memory&, int64_t first_column)
      : weight_(weight), tile_(weight.tiles.data + first_column / columns * weight.tiles.tile_bytes) {}

  __device__ __forceinline__ void begin(int64_t first_k, int64_t) { next_stage_ = first_k / step; }
  template <int part>
  __device__ __forceinline__ void next(float (&weights)[part_weights]) {
    with_ggml_format(weight_.tiles.format, [&]<class Format>() { decode<Format, part>(weights); });
    if constexpr ((part + 1) * part_weights == step) ++next_stage_;
  }

 private:
  template <class Format, int part>
  __device__ __forceinline__ void decode(float (&weights)[part_weights]) const {
    using Place = ggml::Tiles<Format>;
    const int row = static_cast<int>(threadIdx.x % 32);
    const uint8_t* stage = tile_ + next_stage_ * Place::stage_bytes;
    const uint32_t factors =
        read_factors<Format>(tile_ + weight_.stages * Place::stage_bytes, next_stage_ / Place::block_stages, row);
    const Scale<Format> scale = StageScales<Format>(stage, row, factors).of(part);
    LATHE_UNROLL
    for (int quarter = 0; quarter < 4; ++quarter) {
      const uint32_t word = StageCodes<Format>::word_at(stage, row, quarter, part, GridInMemory<Format>{});
      LATHE_UNROLL
      for (int b = 0; b < 4; ++b) weights[b / 2 * 8 + 2 * quarter + b % 2] = scale.value(word, b);
    }
  }

  const Argument& weight_;
  const uint8_t* tile_;
  int64_t next_stage_ = 0;
};

template <class Weights, int rows>
struct BlockMemory {
  typename Weights::Memory weights;
  float sums[warps][rows][columns];
};

// What decoding looks up.
__device__ __forceinline__ void fill_tables(const TileWeights::Argument&, TileWeights::Memory&) {}
template <class Argument, class Memory>
__device__ __forceinline__ void fill_tables(const Argument& weight, Memory& memory) {
  weight.codes.fill(memory, static_cast<int>(threadIdx.x), threads);
}

// The next step of a chain, from k on.
template <int part = 0, int rows, class Weights>
__device__ __forceinline__ void add_step(ChainSums<rows>& sums, const F32Rows& left, int64_t m, Weights& weights,
                                         int64_t k, int64_t end) {
  float next[part_weights];
  weights.template next<part>(next);
  add_products(sums, left, m, k, next, end - k < part_weights ? static_cast<int>(end - k) : part_weights);
  if constexpr ((part + 1) * part_weights < Weights::step)
    add_step<part + 1>(sums, left, m, weights, k + part_weights, end);
}

template <
    class Weights, int rows,
    class Resources = BlockResources<threads, rows == 1 ? 2 : 1, static_cast<int>(sizeof(BlockMemory<Weights, rows>))>>
__global__ void __launch_bounds__(Resources::threads, Resources::blocks)
    few_rows_f32_kernel(Resources, FewRowsF32Call p, typename Weights::Argument weight) {
  auto& memory = *dynamic_shared<BlockMemory<Weights, rows>>();
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  const int64_t first_column = int64_t{blockIdx.x} * columns, m = p.epilogue.m;
  fill_tables(weight, memory.weights);
  __syncthreads();  // what decoding looks up is there
  Weights weights(weight, memory.weights, first_column);
  const int64_t chains = (p.k + f32_chain - 1) / f32_chain;
  ChainTotals<rows, columns, threads> totals;
  for (int64_t first = 0; first < chains; first += warps) {
    const int64_t own = first + warp;
    if (own < chains) {
      ChainSums<rows> sums;
      const int64_t begin = own * f32_chain, end = begin + f32_chain < p.k ? begin + f32_chain : p.k;
      weights.begin(begin, end);
#pragma unroll 1
      for (int64_t k = begin; k < end; k += Weights::step) add_step(sums, p.left, m, weights, k, end);
      if (own == chains - 1) add_second_pair(sums, p, first_column + lane);
      LATHE_UNROLL
      for (int r = 0; r < rows; ++r)
        if (r < m) memory.sums[warp][r][lane] = sums.at[r];
    }
    __syncthreads();  // the chains' sums are there
    totals.add(memory.sums, first, chains - first < warps ? static_cast<int>(chains - first) : warps, m);
    __syncthreads();  // they have been read
  }
  totals.finish(p.epilogue, first_column);
}

template <class Weights>
void start(const ProductArgs& args, const typename Weights::Argument& weight) {
  const FewRowsF32Call p = few_rows_f32_call(args);
  const dim3 grid(static_cast<unsigned>((args.n + columns - 1) / columns));
  if (args.m == 1) return launch("few_rows_f32", grid, few_rows_f32_kernel<Weights, 1>, p, weight);
  if (args.m <= 4) return launch("few_rows_f32", grid, few_rows_f32_kernel<Weights, 4>, p, weight);
  launch("few_rows_f32", grid, few_rows_f32_kernel<Weights, 16>, p, weight);
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
void quantized_few_rows_f32(const QuantizedProductArgs& args) {
  with_format(args.format, [&]<class Format>() {
    using Codes = decltype(device_codes(Format{}, args));
    start<CodedWeights<Codes>>(args.product, {device_codes(Format{}, args), args.product.n, args.product.k});
  });
}
template void quantized_few_rows_f32<DeviceKind::LATHE_CUDA_NAMESPACE>(const QuantizedProductArgs&);

template <DeviceKind>
void ggml_few_rows_f32(const GgmlTilesProductArgs& args) {
  start<TileWeights>(args.product, {args.weight, (args.product.k + TileWeights::step - 1) / TileWeights::step});
}
template void ggml_few_rows_f32<DeviceKind::LATHE_CUDA_NAMESPACE>(const GgmlTilesProductArgs&);

}  // namespace lathe::kernels
