#include "kernels/nf4/bodies.h"

#include "kernels/nf4/codebook.h"
#include "kernels/nf4/cpu_codebook.h"
#include "kernels/simd/bytes.h"
#include "kernels/simd/row.h"
#include "kernels/simd/transpose.h"

namespace lathe::kernels::LATHE_ISA {
namespace {

LATHE_INLINE Vec load_any(const void* data, DType dtype, int64_t i, int count) {
  switch (dtype) {
    case DType::f32: return load_some(static_cast<const float*>(data) + i, count);
    case DType::bf16: return load_some(static_cast<const bf16*>(data) + i, count);
    default: return load_some(static_cast<const f16*>(data) + i, count);
  }
}

#if defined(LATHE_AVX512)
// [−1, 1] cut into 32 cells, narrower than any two thresholds are apart: a cell holds one threshold at most (+∞ stands
// for none), and `below` thresholds lie under it.
struct Nf4Cells {
  float threshold[32];
  int32_t below[32];
};
constexpr Nf4Cells nf4_cells = [] {
  Nf4Cells cells{};
  for (int cell = 0, code = 0; cell < 32; ++cell) {
    const float end = static_cast<float>(cell - 15) / 16.0f;
    cells.below[cell] = code;
    cells.threshold[cell] =
        code < 15 && nf4_codebook.thresholds[code] < end ? nf4_codebook.thresholds[code++] : __builtin_inff();
  }
  return cells;
}();
static_assert([] {
  for (int cell = 0; cell < 32; ++cell)
    if (nf4_cells.threshold[cell] < static_cast<float>(cell - 16) / 16.0f) return false;
  return nf4_cells.below[31] == 15;
}());

// How many thresholds lie below each lane. NaN has none.
LATHE_INLINE VecU codes_of(Vec x) {
  const Vec place = fma(x, splat(16.0f), splat(16.0f));
  const __m512i cell = (__m512i) __builtin_convertvector(min(max(place, zero()), splat(31.0f)), VecI);
  const Vec threshold = (Vec)_mm512_permutex2var_ps(_mm512_loadu_ps(nf4_cells.threshold), cell,
                                                    _mm512_loadu_ps(nf4_cells.threshold + lanes));
  const VecI below = (VecI)_mm512_permutex2var_epi32(_mm512_loadu_si512(nf4_cells.below), cell,
                                                     _mm512_loadu_si512(nf4_cells.below + lanes));
  return (VecU)(below - (VecI)(x > threshold));
}
#else
// Counts the thresholds below each lane.
LATHE_INLINE VecU codes_of(Vec x) {
  VecI codes{};
#pragma GCC unroll 15
  for (int i = 0; i < 15; ++i) codes = codes - (VecI)(x > splat(nf4_codebook.thresholds[i]));  // a comparison gives −1
  return (VecU)codes;
}
#endif

// Two codes to a byte, the first in its upper half. Where their number is odd, the next lane's code joins the last.
LATHE_INLINE void store_codes(uint8_t* bytes, VecU codes, int count) {
#if defined(LATHE_AVX512)
  if (count == lanes) {
    const __m512i pairs = (__m512i)codes;
    const __m512i joined = _mm512_or_si512(_mm512_slli_epi64(pairs, 4), _mm512_srli_epi64(pairs, 32));
    return _mm_storel_epi64(reinterpret_cast<__m128i*>(bytes), _mm512_cvtepi64_epi8(joined));
  }
#endif
  uint32_t words[lanes];
  store_words(words, codes);
  for (int j = 0; j < count; j += 2) bytes[j / 2] = static_cast<uint8_t>(words[j] << 4 | words[j + 1]);
}

constexpr int64_t nested_block = 256;

float scale_of(const Nf4ScaleArgs& from, int64_t block) {
  if (from.absmax != nullptr) return from.absmax[block];
  const float product = from.map[from.codes[block]] * from.nested_absmax[block / nested_block];
  return product + *from.offset;
}

// Pieces of 2 · lanes elements (`lanes` bytes of codes) that start at a multiple of 2 · lanes lie within one block.
// What is left at both ends goes through memory.
template <class T>
void dequantize(const Nf4DequantizeArgs& args) {
  constexpr int64_t piece = 2 * lanes;
  const Nf4Table table = nf4_table();
  T* out = static_cast<T*>(args.out) - args.first;
  for (int64_t i = args.begin; i < args.end;) {
    const int64_t start = i / piece * piece;
    const int64_t stop = start + piece < args.end ? start + piece : args.end;
    const Vec scale = splat(scale_of(args.scales, i / args.block_size));
    uint8_t edge[lanes] = {};
    const uint8_t* bytes = args.codes + start / 2;
    const bool whole = i == start && stop == start + piece;
    if (!whole) {
      for (int64_t b = i / 2; b < (stop + 1) / 2; ++b) edge[b - start / 2] = args.codes[b];
      bytes = edge;
    }
    const VecU words = load_bytes(bytes);
    const Vec first = look_up(table, words >> 4) * scale, second = look_up(table, words & 15u) * scale;
    const Vec low = (Vec)interleave_low((VecU)first, (VecU)second),
              high = (Vec)interleave_high((VecU)first, (VecU)second);
    if (whole) {
      store_exactly(out + i, low, lanes);
      store_exactly(out + i + lanes, high, lanes);
    } else {
      T values[piece];
      store_exactly(values, low, lanes);
      store_exactly(values + lanes, high, lanes);
      for (int64_t j = i; j < stop; ++j) out[j] = values[j - start];
    }
    i = stop;
  }
}

}  // namespace
}  // namespace lathe::kernels::LATHE_ISA

namespace lathe::kernels {

template <Isa>
void nf4_quantize_blocks(Nf4QuantizeArgs args) {
  for (int64_t block = args.block_begin; block < args.block_end; ++block) {
    const int64_t first = block * args.block_size;
    const int64_t count = args.numel - first < args.block_size ? args.numel - first : args.block_size;
    Vec largest{};
    for_row(count,
            [&](int64_t i, int n) { largest = max(abs(load_any(args.weight, args.dtype, first + i, n)), largest); });
    const float absmax = max_lanes(largest);
    args.absmax[block] = absmax;
    const Vec inverse = splat(1.0f / (absmax > nf4_least_absmax ? absmax : nf4_least_absmax));
    // Lanes past the end are zeros, which have code 7.
    for_row(count, [&](int64_t i, int n) {
      const Vec x = load_any(args.weight, args.dtype, first + i, n) * inverse;
      store_codes(args.codes + (first + i) / 2, codes_of(x), n);
    });
  }
}
template void nf4_quantize_blocks<Isa::LATHE_ISA>(Nf4QuantizeArgs);

template <Isa>
void nf4_nest_blocks(Nf4NestArgs args) {
  const float offset = *args.offset;
  for (int64_t block = args.block_begin; block < args.block_end; ++block) {
    const int64_t first = block * nested_block;
    const int64_t last = args.count - first < nested_block ? args.count : first + nested_block;
    float largest = 0;
    for (int64_t i = first; i < last; ++i) {
      const float magnitude = __builtin_fabsf(args.absmax[i] - offset);
      largest = magnitude > largest ? magnitude : largest;
    }
    args.nested_absmax[block] = largest;
    const float inverse = 1.0f / (largest > nf4_least_absmax ? largest : nf4_least_absmax);
    for (int64_t i = first; i < last; ++i) {
      const float x = (args.absmax[i] - offset) * inverse;
      int code = 0;
      for (int step = 128; step > 0; step /= 2) code += x > args.thresholds[code + step - 1] ? step : 0;
      args.codes[i] = static_cast<uint8_t>(code);
    }
  }
}
template void nf4_nest_blocks<Isa::LATHE_ISA>(Nf4NestArgs);

template <Isa>
void nf4_dequantize_elements(Nf4DequantizeArgs args) {
  switch (args.dtype) {
    case DType::f32: return dequantize<float>(args);
    case DType::bf16: return dequantize<bf16>(args);
    default: return dequantize<f16>(args);
  }
}
template void nf4_dequantize_elements<Isa::LATHE_ISA>(Nf4DequantizeArgs);

}  // namespace lathe::kernels
