#include "kernels/matmul/cpu/codes_product.h"
#include "kernels/simd/bytes.h"

namespace lathe::kernels::LATHE_ISA {
namespace {

// A byte's value as int8, exact: its bits go into the mantissa of a number around 2^23 or, from a word's upper byte,
// around 2^15, from which that number and 128 are subtracted. Shifts and conversions kept the ports of shifts busy;
// this takes logic, which has any port, and a subtraction.
LATHE_INLINE Vec lower_byte(VecU word) { return (Vec)((word & 0xffu) ^ 0x4b000080u) - splat(0x1p23f + 128); }
LATHE_INLINE Vec upper_byte(VecU word) { return (Vec)((word & 0xff00u) ^ 0x47008000u) - splat(0x1p15f + 128); }

struct Int8Decoder {
  // One stream, which the hardware's prefetcher follows: with prefetches besides, it took a fifth to a half longer.
  static constexpr bool prefetches = false;
  struct Chunk {
    const uint8_t* pairs;
  };
  LATHE_INLINE Chunk load_chunk(const uint8_t* codes, int64_t, int64_t chunk, int64_t half) const {
    return {codes + chunk * gemm::decode_chunk * gemm::panel_width + half * half_rows * 2};
  }

  template <DType dtype>
  LATHE_INLINE void decode(const Chunk& chunk, int segment, int pair, const RowScales<dtype>& scales,
                           DecodedWords<dtype>& words) const {
    const uint8_t* codes = chunk.pairs + (segment * segment_pairs + pair) * 2 * gemm::panel_width;
#if defined(LATHE_ISA_avx512_bf16)
    if constexpr (dtype == DType::bf16) {
      const int8_t* at = reinterpret_cast<const int8_t*>(codes);
      const Vec low = __builtin_convertvector(load_signed_bytes(at), Vec) * scales.low;
      const Vec high = __builtin_convertvector(load_signed_bytes(at + lanes), Vec) * scales.high;
      words.steps[0][0] = (VecU)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low);
      return;
    } else
#endif
    {
#pragma GCC unroll 4
      for (int j = 0; j < half_vectors; ++j) {
        const VecU pairs = load_pairs_of_bytes(codes + 2 * j * lanes);
        put(words, j, lower_byte(pairs) * scales.rows[j], upper_byte(pairs) * scales.rows[j]);
      }
    }
  }
};

#if defined(LATHE_AVX512)
// f32. The codes of one pair of neighbours of a panel's 32 rows are a cache line, read as 16 words, each with the pair
// of an even row below that of an odd one. So the sums of even and odd rows lie apart until the end, and one shift
// serves 64 weights, where widening each half took two instructions of the same ports.
struct EvenAndOddScales {
  Vec even, odd;
  LATHE_INLINE explicit EvenAndOddScales(const float* rows) {
    const Vec a = load(rows), b = load(rows + lanes);
    even = __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    odd = __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
  }
};

template <int rows>
void multiply_lines(const CodeRange& first, const SecondRange& second, float* accumulators, bool begins, int64_t) {
  static_assert(gemm::panel_width == 2 * lanes);
  using Step = F32Step<rows, 1>;
  const WeightPanels& panels = first.panels;
  const int64_t group_bytes = gemm::group_bytes<Int8Format>(panels.group);
  const int64_t first_group = first.first_step / panels.group, last_group = first.last_step / panels.group;
  const uint32_t* left = first.left;
  Vec sums[2][rows][1];
  clear(sums);
  for (int64_t g = first_group; g < last_group; ++g) {
    const CodeGroup group = group_at<Int8Format>(panels, first.panel, g);
    const EvenAndOddScales scales(group.scales);
    const uint8_t* line = group.codes;
#pragma GCC unroll 4
    for (int64_t k = 0; k < panels.group; k += 2, line += 2 * gemm::panel_width, left += 2 * rows) {
      // Two groups ahead and line by line; a group at once took a tenth longer, and one row gains nothing.
      if constexpr (rows > 1) __builtin_prefetch(line + 2 * group_bytes);
      const VecU even = load_words(line), odd = even >> 16;
      Step::multiply(sums[0], left, {(VecU)(lower_byte(even) * scales.even)});
      Step::multiply(sums[1], left, {(VecU)(lower_byte(odd) * scales.odd)});
      Step::multiply(sums[0], left + rows, {(VecU)(upper_byte(even) * scales.even)});
      Step::multiply(sums[1], left + rows, {(VecU)(upper_byte(odd) * scales.odd)});
    }
  }
  Vec in_order[2][1][rows][1];
#pragma GCC unroll 4
  for (int row = 0; row < rows; ++row) {
    const VecU even = (VecU)sums[0][row][0], odd = (VecU)sums[1][row][0];
    in_order[0][0][row][0] = (Vec)interleave_low(even, odd), in_order[1][0][row][0] = (Vec)interleave_high(even, odd);
  }
#pragma GCC unroll 2
  for (int half = 0; half < 2; ++half) finish_chains<Step>(in_order[half], second, accumulators, begins, half * lanes);
}
#endif

template <int rows>
constexpr CodeTileKernel f32_kernel() {
#if defined(LATHE_AVX512)
  return multiply_lines<rows>;
#else
  return multiply_codes<Int8Format, Int8Decoder, DType::f32, rows>;
#endif
}

template <DType dtype>
using ByChunks = ChunkDecoder<Int8Decoder, dtype>;

}  // namespace

template <>
void decode_panel<Int8Format>(const WeightPanels& panels, DType dtype, int64_t panel, int64_t first_k, int64_t last_k,
                              uint32_t* words) {
  if (dtype == DType::bf16)
    return decode_panel_by<Int8Format, ByChunks<DType::bf16>>(panels, dtype, panel, first_k, last_k, words);
  decode_panel_by<Int8Format, ByChunks<DType::f32>>(panels, dtype, panel, first_k, last_k, words);
}

template <>
CodeTileKernel code_tile_kernel<Int8Format>(const WeightPanels&, DType dtype, int64_t rows) {
  return with_rows(rows, [&]<int count>() -> CodeTileKernel {
    if (dtype == DType::f32) return f32_kernel<count>();
    return multiply_codes<Int8Format, Int8Decoder, DType::bf16, count>;
  });
}

}  // namespace lathe::kernels::LATHE_ISA
