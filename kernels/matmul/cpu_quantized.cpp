// Codes become words of a panel in registers: for the few rows of a decode step they are used there, for more they fill a slab that
// all tiles read. Both ways make the same words and add them in the same order.
#include "kernels/matmul/cpu_quantized.h"

#include "kernels/matmul/cpu_codes.h"

namespace lathe::kernels::LATHE_ISA {
namespace {

using gemm::Element;
using gemm::panel_width;
using gemm::quantized_scale_bytes;
using gemm::Right;

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
    for (int block = 0; block < panel_width / block_rows; ++block) {
      const BlockScales<element> scales(group.scales + block * block_rows);
      uint32_t* out = slab + block * block_rows;
      for (int64_t pair = begin / 2; pair < stop / 2; ++pair) {
        BlockWords<element> words;
        Codes::decode(codes, group.codes + Codes::block_bytes * (pair * panel_width / block_rows + block), scales,
                      words);
#pragma GCC unroll 2
        for (auto& unit : words.units) {
#pragma GCC unroll 4
          for (int j = 0; j < block_vectors; ++j) store_words(out + j * lanes, unit[j]);
          out += panel_width;
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
  using Step = F32Step<rows, block_vectors>;
};
template <int rows>
struct StepFor<rows, Element::bf16> {
  using Step = PairStep<rows, block_vectors>;
};

// Blocks of rows side by side: what the registers hold besides scales and a table.
constexpr int blocks_at_once(int rows) { return lanes == 16 ? 2 : lanes == 8 && rows == 1 ? 2 : 1; }

template <class Codes, Element element, int rows>
void multiply_quantized(const QuantizedStretch& first, Stretch second, float* accumulators, bool begins,
                        int64_t columns) {
  constexpr int blocks = blocks_at_once(rows);
  using Step = typename StepFor<rows, element>::Step;
  constexpr int64_t k_per_unit = element == Element::bf16 ? 2 : 1;
  const Codes codes{};
  const Right& right = first.right;
  const int64_t first_group = first.first_unit * k_per_unit / right.group,
                last_group = first.last_unit * k_per_unit / right.group;
  for (int64_t column = 0; column < columns; column += blocks * block_rows) {
    Vec sums[blocks][rows][block_vectors];
#pragma GCC unroll 2
    for (auto& block : sums)
#pragma GCC unroll 4
      for (auto& row : block)
#pragma GCC unroll 4
        for (Vec& sum : row) sum = zero();
    const uint32_t* left = first.left;
    for (int64_t g = first_group; g < last_group; ++g) {
      const GroupAt group = group_at(right, first.panel, g);
      BlockScales<element> scales[blocks];
#pragma GCC unroll 2
      for (int b = 0; b < blocks; ++b) scales[b] = BlockScales<element>(group.scales + column + b * block_rows);
      const uint8_t* bytes = group.codes + column / block_rows * Codes::block_bytes;
      for (int64_t pair = 0; pair < right.group / 2; ++pair, bytes += panel_width / block_rows * Codes::block_bytes) {
        constexpr int units = BlockWords<element>::count;
#pragma GCC unroll 2
        for (int b = 0; b < blocks; ++b) {
          BlockWords<element> words;
          Codes::decode(codes, bytes + b * Codes::block_bytes, scales[b], words);
#pragma GCC unroll 2
          for (int unit = 0; unit < units; ++unit)
            Step::multiply(sums[b], left + unit * rows * Step::left_words, words.units[unit]);
        }
        left += units * rows * Step::left_words;
      }
    }
#pragma GCC unroll 2
    for (int b = 0; b < blocks; ++b) {
      const uint32_t* words = second.right + column + b * block_rows;
      left = second.left;
      for (int64_t unit = 0; unit < second.units; ++unit, left += rows * Step::left_words, words += panel_width)
        multiply_panel<Step>(sums[b], left, words);
#pragma GCC unroll 4
      for (int i = 0; i < rows; ++i)
#pragma GCC unroll 4
        for (int j = 0; j < block_vectors; ++j) {
          float* total = accumulators + i * panel_width + column + b * block_rows + j * lanes;
          store(total, begins ? sums[b][i][j] : load(total) + sums[b][i][j]);
        }
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
