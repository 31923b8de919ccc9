// A few rows times nf4's and int8's codes, which lie as bitsandbytes has them (codes_product.cuh): rows of codes, and
// scales apart.
#include "kernels/matmul/cuda/codes_product.cuh"
#include "kernels/matmul/weights/decode.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

using Shape = CodesShape;

// Scales come in chunks of so many stages along k, one chunk ahead in registers and the next but one on its way.
constexpr int chunk_steps = 16;
constexpr int scales_of_thread = chunk_steps / threads_of_column;

// Of a column's codes in a stage. Lanes of eight columns read two bytes of eight each: padded, int8 meets no bank
// twice.
template <class Codes>
constexpr int column_bytes = block_k* Codes::bits / 8;
template <class Codes>
constexpr int column_pitch = column_bytes<Codes> + (Codes::bits == 8 ? 16 : 0);

// 20 KB of codes in flight in a block, and more, of which an H100 has room for three; of each of gate and up 16
// and more, and room for three, too.
template <class Codes>
constexpr int stages_alone = Codes::bits == 8 ? 13 : 20;
template <class Codes>
constexpr int stages_gated = Codes::bits == 8 ? 9 : 16;

template <class T, class Codes_, int stages_>
class WeightReader {
 public:
  using Codes = Codes_;
  static constexpr int stages = stages_;
  struct Memory {
    alignas(16) uint8_t codes[stages][Shape::n * column_pitch<Codes>];
    float scales[2][chunk_steps][Shape::n];
    typename Codes::Shared shared;
  };

  __device__ __forceinline__ WeightReader(const Codes& codes, Memory& memory, int64_t first_column, int64_t columns,
                                          int64_t k)
      : codes_(codes), memory_(memory), first_column_(first_column), columns_(columns), k_(k) {
    const int row = tile_thread() / vectors, vector = tile_thread() % vectors;
    place_ = row * column_pitch<Codes> + vector * 16;
    valid_bytes_ = first_column + row < columns ? 16 : 0;
    next_codes_ = codes.codes + (valid_bytes_ == 0 ? 0 : (first_column + row) * row_bytes() + vector * 16);
  }

  __device__ __forceinline__ void prefetch() const {
    prefetch_rows<Shape::n, Shape::threads>(DenseOperand<uint8_t>{codes_.codes, row_bytes(), true}, first_column_,
                                            columns_, row_bytes());
  }

  // Columns past the last get zeros.
  __device__ __forceinline__ void copy(int stage) {
    if (tile_thread() >= Shape::n * vectors) return;
    cp_async_16(memory_.codes[stage] + place_, next_codes_, valid_bytes_);
    if (valid_bytes_ > 0) next_codes_ += column_bytes<Codes>;
  }

  __device__ __forceinline__ void begin() {
    codes_.fill(memory_.shared, tile_thread(), Shape::threads);
    const RawScales first = read_scales(0);
    next_ = read_scales(1);
    __syncthreads();  // what decoding looks up is there
    store_scales(0, first);
  }

  __device__ __forceinline__ void decode(WeightFragments<T>& fragments, int step, int stage) const {
    const float scale = memory_.scales[step / chunk_steps % 2][step % chunk_steps][column()];
    const typename Codes::Pairs pairs(memory_.codes[stage] + column() * column_pitch<Codes>, part());
    LATHE_UNROLL
    for (int eight = 0; eight < block_k / 8; ++eight) {
      const float2 two = pairs.at(eight, memory_.shared);
      fragments.at[eight / 2].registers[eight % 2] = pack_pair(two.x * scale, two.y * scale, T{});
    }
  }

  // Half a chunk after the last use of what is overwritten.
  __device__ __forceinline__ void advance(int step) {
    if (step % chunk_steps != chunk_steps / 2) return;
    store_scales(step / chunk_steps + 1, next_);
    next_ = read_scales(step / chunk_steps + 2);
  }

 private:
  static constexpr int vectors = column_bytes<Codes> / 16;  // of a column's codes in a stage
  struct RawScales {
    typename Codes::RawScale at[scales_of_thread];
  };

  __device__ __forceinline__ int column() const { return tile_thread() / threads_of_column; }
  __device__ __forceinline__ int part() const { return tile_thread() % threads_of_column; }
  __device__ __forceinline__ int steps() const { return static_cast<int>(k_ / block_k); }
  __device__ __forceinline__ int64_t row_bytes() const { return k_ / block_k * column_bytes<Codes>; }

  __device__ __forceinline__ RawScales read_scales(int chunk) const {
    RawScales raw = {};
    const int64_t row = first_column_ + column();
    if (row >= columns_) return raw;
    LATHE_UNROLL
    for (int i = 0; i < scales_of_thread; ++i) {
      const int64_t step = chunk * chunk_steps + part() * scales_of_thread + i;
      if (step < steps()) raw.at[i] = codes_.read_scale(row, step * block_k, k_);
    }
    return raw;
  }

  __device__ __forceinline__ void store_scales(int chunk, const RawScales& raw) const {
    const bool there = first_column_ + column() < columns_;
    LATHE_UNROLL
    for (int i = 0; i < scales_of_thread; ++i) {
      const float scale = there ? codes_.scale(raw.at[i], memory_.shared) : 0.0f;
      memory_.scales[chunk % 2][part() * scales_of_thread + i][column()] = scale;
    }
  }

  const Codes& codes_;
  Memory& memory_;
  int64_t first_column_, columns_, k_;
  // What this thread copies.
  const uint8_t* next_codes_;
  int place_, valid_bytes_;
  RawScales next_;
};

template <class T, class Codes>
void start(const QuantizedProducts& products) {
  using Right = WeightReader<T, Codes, stages_alone<Codes>>;
  const auto of = [&](int i) { return codes_product<T>(products.of[i].product, Codes(products.of[i])); };
  constexpr const char* name = "quantized_product";
  if (products.count == 1) return start_codes_products<T, Right, 1>(name, {{of(0)}, {}});
  static_assert(joined_most == 3);
  CodesProducts<T, Codes, joined_most> all{{of(0), of(1), of(products.count - 1)}, {}};
  if (products.count == 2) all.of[2].epilogue.n = 0;
  start_codes_products<T, Right, joined_most>(name, all);
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
void quantized_product_tiles(const QuantizedProducts& products) {
  with_codes(products.of[0], [&]<class T, class Codes>(const Codes&) { start<T, Codes>(products); });
}
template void quantized_product_tiles<DeviceKind::LATHE_CUDA_NAMESPACE>(const QuantizedProducts&);

template <DeviceKind>
void quantized_gated_tiles(const QuantizedProductArgs& gate, const QuantizedProductArgs& up,
                           const GatedResult& result) {
  using namespace LATHE_CUDA_NAMESPACE;
  with_codes(gate, [&]<class T, class Codes>(const Codes& codes) {
    using Right = WeightReader<T, Codes, stages_gated<Codes>>;
    start_gated_codes<T, Right>("quantized_gated", gate.product, result, codes, Codes(up));
  });
}
template void quantized_gated_tiles<DeviceKind::LATHE_CUDA_NAMESPACE>(const QuantizedProductArgs&,
                                                                      const QuantizedProductArgs&, const GatedResult&);

}  // namespace lathe::kernels
