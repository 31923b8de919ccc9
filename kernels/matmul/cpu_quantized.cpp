// Codes become words of a panel in registers: for the few rows of a decode step they are used there, for more they fill a slab that
// all tiles read. Both ways make the same words and add them in the same order.
#include "kernels/matmul/cpu_quantized.h"

#include "kernels/nf4/cpu_codebook.h"
#include "kernels/simd/bytes.h"

namespace lathe::kernels::LATHE_ISA {
namespace {

using gemm::Element;
using gemm::panel_width;
using gemm::quantized_scale_bytes;
using gemm::Right;

// Two neighbours along k for `lanes` rows.
struct TwoValues {
  Vec first, second;
};

struct Nf4Codes {
  static constexpr QuantizedFormat format = QuantizedFormat::nf4;
  Nf4Table table = nf4_table();
  LATHE_INLINE TwoValues read(const Nf4Codes& self, const uint8_t* codes, int64_t pair) {
    const VecU bytes = load_bytes(codes + pair * panel_width);
    return {look_up(self.table, bytes & 15u), look_up(self.table, bytes >> 4)};
  }
};

struct Int8Codes {
  static constexpr QuantizedFormat format = QuantizedFormat::int8;
  LATHE_INLINE TwoValues read(const Int8Codes&, const uint8_t* codes, int64_t pair) {
    const int8_t* at = reinterpret_cast<const int8_t*>(codes) + 2 * pair * panel_width;
    return {__builtin_convertvector(load_signed_bytes(at), Vec),
            __builtin_convertvector(load_signed_bytes(at + panel_width), Vec)};
  }
};

// f32 to bf16 in the upper half of each word, to nearest even; weights are finite.
LATHE_INLINE VecU rounded_words(Vec v) { return (VecU)v + 0x7fffu + (((VecU)v >> 16) & 1u); }

// bf16 pairs, first in the low half. With dot products of pairs subnormals become zeros, which those take them for anyhow.
LATHE_INLINE VecU pair_of(TwoValues values) {
#if defined(LATHE_ISA_avx512_bf16)
  const __m512i halves = (__m512i)_mm512_cvtne2ps_pbh((__m512)values.second, (__m512)values.first);
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21,
                                         5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return (VecU)_mm512_permutexvar_epi16(order, halves);
#else
  return (rounded_words(values.first) >> 16) | (rounded_words(values.second) & 0xffff0000u);
#endif
}

struct GroupAt {
  const uint8_t* codes;
  const float* scales;
};
LATHE_INLINE GroupAt group_at(const Right& right, int64_t panel, int64_t group) {
  const uint8_t* bytes = static_cast<const uint8_t*>(right.data) + panel * right.stride +
                         group * gemm::quantized_group_bytes(right.format, right.group);
  return {bytes + quantized_scale_bytes, reinterpret_cast<const float*>(bytes)};
}

template <class Codes, Element element>
void fill_slab(const Right& right, int64_t panel, int64_t first_k, int64_t last_k, uint32_t* slab) {
  const Codes codes{};
  for (int64_t k = first_k; k < last_k;) {
    const int64_t begin = k % right.group;
    const int64_t stop = k - begin + right.group < last_k ? right.group : begin + last_k - k;
    const GroupAt group = group_at(right, panel, k / right.group);
    for (int lane = 0; lane < panel_width; lane += lanes) {
      const Vec scale = load(group.scales + lane);
      uint32_t* out = slab + lane;
      for (int64_t pair = begin / 2; pair < stop / 2; ++pair) {
        TwoValues values = Codes::read(codes, group.codes + lane, pair);
        values = {values.first * scale, values.second * scale};
        if (element == Element::bf16) {
          store_words(out, pair_of(values));
          out += panel_width;
        } else {
          store_words(out, (VecU)values.first);
          store_words(out + panel_width, (VecU)values.second);
          out += 2 * panel_width;
        }
      }
    }
    slab += gemm::units_of(stop - begin, element) * panel_width;
    k += stop - begin;
  }
}

template <int rows, Element element>
struct StepFor;
template <int rows>
struct StepFor<rows, Element::f32> {
  template <int vectors>
  using Step = F32Step<rows, vectors>;
};
template <int rows>
struct StepFor<rows, Element::bf16> {
  template <int vectors>
  using Step = PairStep<rows, vectors>;
};

// Scales and a table want registers, too: fewer accumulators than in cpu.cpp.
constexpr int quantized_vectors(int rows) {
  const int registers = lanes == 16 ? 16 : 6;
  int vectors = panel_vectors;
  while (vectors > 1 && vectors * rows > registers) vectors /= 2;
  return vectors;
}

template <class Codes, Element element, int rows>
void multiply_quantized(const QuantizedStretch& first, Stretch second, float* accumulators, bool begins,
                        int64_t columns) {
  constexpr int vectors = quantized_vectors(rows);
  using Step = typename StepFor<rows, element>::template Step<vectors>;
  constexpr int64_t k_per_unit = element == Element::bf16 ? 2 : 1;
  const Codes codes{};
  const Right& right = first.right;
  const int64_t first_group = first.first_unit * k_per_unit / right.group,
                last_group = first.last_unit * k_per_unit / right.group;
  for (int64_t column = 0; column < columns; column += vectors * lanes) {
    Vec sums[rows][vectors];
#pragma GCC unroll 16
    for (int i = 0; i < rows; ++i)
#pragma GCC unroll 8
      for (int j = 0; j < vectors; ++j) sums[i][j] = zero();
    const uint32_t* left = first.left;
    for (int64_t g = first_group; g < last_group; ++g) {
      const GroupAt group = group_at(right, first.panel, g);
      Vec scales[vectors];
#pragma GCC unroll 8
      for (int j = 0; j < vectors; ++j) scales[j] = load(group.scales + column + j * lanes);
      for (int64_t pair = 0; pair < right.group / 2; ++pair) {
        VecU one[vectors], two[vectors];
#pragma GCC unroll 8
        for (int j = 0; j < vectors; ++j) {
          TwoValues values = Codes::read(codes, group.codes + column + j * lanes, pair);
          values = {values.first * scales[j], values.second * scales[j]};
          if (element == Element::bf16) {
            one[j] = pair_of(values);
          } else {
            one[j] = (VecU)values.first, two[j] = (VecU)values.second;
          }
        }
        Step::multiply(sums, left, one);
        left += rows * Step::left_words;
        if (element == Element::f32) {
          Step::multiply(sums, left, two);
          left += rows * Step::left_words;
        }
      }
    }
    const uint32_t* words = second.right + column;
    left = second.left;
    for (int64_t unit = 0; unit < second.units; ++unit, left += rows * Step::left_words, words += panel_width)
      Step::run(sums, left, words);
#pragma GCC unroll 16
    for (int i = 0; i < rows; ++i)
#pragma GCC unroll 8
      for (int j = 0; j < vectors; ++j) {
        float* total = accumulators + i * panel_width + column + j * lanes;
        store(total, begins ? sums[i][j] : load(total) + sums[i][j]);
      }
  }
}

template <class Codes, Element element>
QuantizedTileKernel kernel_for(int64_t rows) {
  switch (rows) {
    case 1: return multiply_quantized<Codes, element, 1>;
    case 2: return multiply_quantized<Codes, element, 2>;
    case 3: return multiply_quantized<Codes, element, 3>;
    case 4: return multiply_quantized<Codes, element, 4>;
  }
  __builtin_unreachable();
}

}  // namespace

void dequantize_panel(const Right& right, Element element, int64_t panel, int64_t first_k, int64_t last_k,
                      uint32_t* slab) {
  const bool nf4 = right.format == QuantizedFormat::nf4;
  if (element == Element::bf16)
    return nf4 ? fill_slab<Nf4Codes, Element::bf16>(right, panel, first_k, last_k, slab)
               : fill_slab<Int8Codes, Element::bf16>(right, panel, first_k, last_k, slab);
  return nf4 ? fill_slab<Nf4Codes, Element::f32>(right, panel, first_k, last_k, slab)
             : fill_slab<Int8Codes, Element::f32>(right, panel, first_k, last_k, slab);
}

QuantizedTileKernel quantized_kernel_for(QuantizedFormat format, Element element, int64_t rows) {
  const bool nf4 = format == QuantizedFormat::nf4;
  if (element == Element::bf16)
    return nf4 ? kernel_for<Nf4Codes, Element::bf16>(rows) : kernel_for<Int8Codes, Element::bf16>(rows);
  return nf4 ? kernel_for<Nf4Codes, Element::f32>(rows) : kernel_for<Int8Codes, Element::f32>(rows);
}

}  // namespace lathe::kernels::LATHE_ISA
