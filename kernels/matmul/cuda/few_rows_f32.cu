// A few rows of f32 times a weight, dense or in codes, in the very order of f32.cu: chains of 512 fused multiply-adds
// along k, added in order. A warp takes a chain of 32 columns, one to a lane: eight chains are under way in a block,
// where a tile of 64 × 64 would walk along k alone, with few of its threads at work for a row.
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.h"
#include "kernels/cuda/tile/pipeline.cuh"
#include "kernels/cuda/tile/shared_tile.cuh"
#include "kernels/matmul/cuda/epilogue.cuh"
#include "kernels/matmul/cuda/quantized.h"
#include "kernels/matmul/weights/decode.cuh"
#include "kernels/matmul/weights/ggml/cuda/bodies.h"
#include "kernels/matmul/weights/ggml/cuda/decode.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

constexpr int chain = 512;  // gemm::k_block
constexpr int warps = 8, threads = warps * 32, columns = 32;

struct Rows {
  const float* data;  // [m, k]
  int64_t stride;
};

struct Call {
  Rows left, left2, right2;
  int64_t k, k2;
  Epilogue<float> epilogue;
};

template <int rows>
struct Sums {
  float at[rows] = {};
};

// sums += left[·, k] · weights[k], k ascending.
template <int rows, int count>
__device__ __forceinline__ void add_products(Sums<rows>& sums, const Rows& left, int64_t m, int64_t first_k,
                                             const float (&weights)[count], int there) {
  LATHE_UNROLL
  for (int r = 0; r < rows; ++r) {
    if (r >= m) break;
    const float* const from = left.data + r * left.stride + first_k;
    LATHE_UNROLL
    for (int j = 0; j < count; ++j)
      if (j < there) sums.at[r] = fmaf(from[j], weights[j], sums.at[r]);
  }
}

// ---- where a lane's weights come from ----
//
// begin(k, end) starts a chain; of every `step` along it next<part>(weights) then brings sixteen after sixteen.

constexpr int part_weights = 16;

// Rows of a dense weight [n, k], at multiples of 16 bytes: by cp.async, as no two lanes' rows are neighbours.
class DenseWeights {
 public:
  static constexpr int step = part_weights;
  struct Argument {
    const float* data;
    int64_t stride, n, k;
  };
  using Tile = PaddedTile<float, columns, step>;
  static constexpr int stages = 4;
  struct Memory {
    Tile stages[warps][DenseWeights::stages];
  };
  static_assert(bank_passes(16, [](int lane) { return Tile::offset(lane, 0) * 4; }) == 1);

  __device__ __forceinline__ DenseWeights(const Argument& weight, Memory& memory, int64_t first_column)
      : weight_(weight), tiles_(memory.stages[threadIdx.x / 32]), first_column_(first_column) {}

  __device__ __forceinline__ void begin(int64_t first_k, int64_t end_k) {
    next_k_ = first_k, end_k_ = end_k;
    filling_ = reading_ = 0;
    for (int s = 0; s + 1 < stages; ++s) fill();
  }
  template <int>
  __device__ __forceinline__ void next(float (&weights)[part_weights]) {
    cp_async_wait<stages - 2>();
    __syncwarp();  // the stage is there for all lanes, and all are done with the one before
    fill();
    const float* const from = tiles_[reading_].elements + Tile::offset(static_cast<int>(threadIdx.x % 32), 0);
    LATHE_UNROLL
    for (int i = 0; i < step; i += 4) {
      const float4 four = load_vector<float4>(from + i);
      weights[i] = four.x, weights[i + 1] = four.y, weights[i + 2] = four.z, weights[i + 3] = four.w;
    }
    reading_ = reading_ + 1 == stages ? 0 : reading_ + 1;
  }
  __device__ __forceinline__ void end() const {
    cp_async_wait<0>();
    __syncwarp();  // nobody reads the stages any more
  }

 private:
  // The next stage, an empty group of copies past the chain's end.
  __device__ __forceinline__ void fill() {
    constexpr int vectors = step / 4;
    if (next_k_ < end_k_) {
      LATHE_UNROLL
      for (int i = 0; i < vectors; ++i) {
        const int index = i * 32 + static_cast<int>(threadIdx.x % 32), row = index / vectors,
                  column = index % vectors * 4;
        const int64_t left = end_k_ - next_k_ - column;
        const bool there = first_column_ + row < weight_.n && left > 0;
        const float* const from =
            weight_.data + (there ? (first_column_ + row) * weight_.stride + next_k_ + column : 0);
        cp_async_16(tiles_[filling_].elements + Tile::offset(row, column), from,
                    there ? static_cast<int>(left < 4 ? left : 4) * 4 : 0);
      }
    }
    cp_async_commit();
    next_k_ += step;
    filling_ = filling_ + 1 == stages ? 0 : filling_ + 1;
  }

  const Argument& weight_;
  Tile (&tiles_)[stages];
  int64_t first_column_, next_k_ = 0, end_k_ = 0;
  int filling_ = 0, reading_ = 0;
};

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
  __device__ __forceinline__ void end() const {}

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
  __device__ __forceinline__ void end() const {}

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
      const uint32_t word = StageCodes<Format>::word_at(stage, row, quarter, part);
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
__device__ __forceinline__ void fill_tables(const DenseWeights::Argument&, DenseWeights::Memory&) {}
__device__ __forceinline__ void fill_tables(const TileWeights::Argument&, TileWeights::Memory&) {}
template <class Argument, class Memory>
__device__ __forceinline__ void fill_tables(const Argument& weight, Memory& memory) {
  weight.codes.fill(memory, static_cast<int>(threadIdx.x), threads);
}

// The second pair's terms go on with the last chain.
template <int rows>
__device__ __forceinline__ void add_second_pair(Sums<rows>& sums, const Call& p, int64_t column) {
  for (int64_t k = 0; k < p.k2; ++k) {
    const float weight = column < p.epilogue.n ? p.right2.data[column * p.right2.stride + k] : 0.0f;
    const float one[1] = {weight};
    add_products(sums, p.left2, p.epilogue.m, k, one, 1);
  }
}

__device__ __forceinline__ float at(const ProductMatrix& matrix, int64_t row, int64_t column) {
  return static_cast<const float*>(matrix.data)[row * matrix.stride + column];
}

// The next step of a chain, from k on.
template <int part = 0, int rows, class Weights>
__device__ __forceinline__ void add_step(Sums<rows>& sums, const Rows& left, int64_t m, Weights& weights, int64_t k,
                                         int64_t end) {
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
    few_rows_f32_kernel(Resources, Call p, typename Weights::Argument weight) {
  auto& memory = *dynamic_shared<BlockMemory<Weights, rows>>();
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  const int64_t first_column = int64_t{blockIdx.x} * columns, m = p.epilogue.m;
  fill_tables(weight, memory.weights);
  __syncthreads();  // what decoding looks up is there
  Weights weights(weight, memory.weights, first_column);
  const int64_t chains = (p.k + chain - 1) / chain;
  constexpr int rows_of_warp = (rows + warps - 1) / warps;  // whose chains this warp adds
  float totals[rows_of_warp] = {};
  for (int64_t first = 0; first < chains; first += warps) {
    const int64_t own = first + warp;
    if (own < chains) {
      Sums<rows> sums;
      const int64_t begin = own * chain, end = begin + chain < p.k ? begin + chain : p.k;
      weights.begin(begin, end);
#pragma unroll 1
      for (int64_t k = begin; k < end; k += Weights::step) add_step(sums, p.left, m, weights, k, end);
      weights.end();
      if (own == chains - 1) add_second_pair(sums, p, first_column + lane);
      LATHE_UNROLL
      for (int r = 0; r < rows; ++r)
        if (r < m) memory.sums[warp][r][lane] = sums.at[r];
    }
    __syncthreads();  // the chains' sums are there
    const int count = chains - first < warps ? static_cast<int>(chains - first) : warps;
    LATHE_UNROLL
    for (int i = 0; i < rows_of_warp; ++i) {
      const int row = i * warps + warp;
      if (row >= rows || row >= m) continue;
      // The first chain is not added to zero, which would lose a negative one.
      for (int c = 0; c < count; ++c)
        totals[i] = first + c == 0 ? memory.sums[c][row][lane] : totals[i] + memory.sums[c][row][lane];
    }
    __syncthreads();  // they have been read
  }
  const int64_t column = first_column + lane;
  const Epilogue<float>& e = p.epilogue;
  LATHE_UNROLL
  for (int i = 0; i < rows_of_warp; ++i) {
    const int row = i * warps + warp;
    if (row >= rows || row >= m || column >= e.n) continue;
    float value = totals[i] * e.scale;
    if (e.bias.data != nullptr) value += at(e.bias, 0, column);
    if (e.residual.data != nullptr) value += at(e.residual, row, column);
    static_cast<float*>(e.out.data)[row * e.out.stride + column] = value;
  }
}

template <class Weights>
void start(const ProductArgs& args, const typename Weights::Argument& weight) {
  const auto rows_of = [](const ProductMatrix& matrix) {
    return Rows{static_cast<const float*>(matrix.data), matrix.stride};
  };
  const Call p{rows_of(args.left),      rows_of(args.left2), rows_of(args.right2), args.k, args.k2,
               epilogue_of<float>(args)};
  const dim3 grid(static_cast<unsigned>((args.n + columns - 1) / columns));
  if (args.m == 1) return launch("few_rows_f32", grid, few_rows_f32_kernel<Weights, 1>, p, weight);
  if (args.m <= 4) return launch("few_rows_f32", grid, few_rows_f32_kernel<Weights, 4>, p, weight);
  launch("few_rows_f32", grid, few_rows_f32_kernel<Weights, 16>, p, weight);
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
bool few_rows_f32(const ProductArgs& args) {
  const float* const data = static_cast<const float*>(args.right.data);
  if (args.layout != ProductLayout::rows_rows || args.m > most_fused_rows || args.k == 0) return false;
  if (!rows_aligned(data, args.right.stride)) return false;
  start<DenseWeights>(args, {data, args.right.stride, args.n, args.k});
  return true;
}
template bool few_rows_f32<DeviceKind::LATHE_CUDA_NAMESPACE>(const ProductArgs&);

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
