// Codes become words of a panel in registers: for the few rows of a decode step they are used there, for more they fill a slab that
// all tiles read. Both ways make the same words and add them in the same order.
#include "kernels/matmul/cpu/quantized.h"

#include <type_traits>

#include "kernels/matmul/cpu/codes.h"
#include "kernels/matmul/cpu/tables.h"

namespace lathe::kernels::LATHE_ISA {
namespace {

using gemm::Element;
using gemm::panel_width;
using gemm::quantized_scale_bytes;
using gemm::Right;

// The codes of a square are registers where there are enough of them, and are chosen by constants then.
#if defined(LATHE_AVX512)
#define LATHE_UNROLL_SQUARE _Pragma("GCC unroll 4")
#else
#define LATHE_UNROLL_SQUARE
#endif

struct GroupAt {
  const uint8_t* codes;
  const float* scales;
};
LATHE_INLINE GroupAt group_at(const Right& right, int64_t panel, int64_t group) {
  const uint8_t* bytes = static_cast<const uint8_t*>(right.data) + panel * right.stride +
                         group * gemm::quantized_group_bytes(right.format, right.group);
  return {bytes + quantized_scale_bytes, reinterpret_cast<const float*>(bytes)};
}

// Memory asked for early, in its order and for each group as much as a group has: by one pass over a slab the groups that follow soon, by
// several their parts of the next slab.
class AskedEarly {
 public:
  LATHE_INLINE AskedEarly(const QuantizedStretch& first, int64_t first_group, int64_t last_group,
                                 int64_t group_bytes, int64_t pass, int passes)
      : bytes_(group_bytes / passes),
        at_(passes == 1
                ? group_at(first.right, first.panel, first_group + 8).codes
                : group_at(first.right, first.panel, last_group).codes + pass * (last_group - first_group) * bytes_) {}
  LATHE_INLINE void ask() {
    for (int64_t byte = 0; byte < bytes_; byte += 64) __builtin_prefetch(at_ + byte);
    at_ += bytes_;
  }

 private:
  int64_t bytes_;
  const uint8_t* at_;
};

// Fills a slab square by square: 32 neighbours along k of 16 rows.
template <class Filler>
void fill_slab(const Right& right, Element element, int64_t panel, int64_t first_k, int64_t last_k, uint32_t* slab) {
  const Filler filler{};
  for (int64_t k = first_k; k < last_k;) {
    const int64_t begin = k % right.group;
    const int64_t stop = k - begin + right.group < last_k ? right.group : begin + last_k - k;
    const GroupAt group = group_at(right, panel, k / right.group);
    for (int block = 0; block < panel_width / block_rows; ++block)
      Filler::fill(filler, group, right.group, begin / gemm::decoded_k, stop / gemm::decoded_k, block,
                   slab + block * block_rows);
    slab += gemm::units_of(stop - begin, element) * panel_width;
    k += stop - begin;
  }
}

template <class Codes, Element element>
struct Decoding {
  Codes codes{};
  static LATHE_INLINE void fill(const Decoding& self, const GroupAt& group, int64_t group_k, int64_t first, int64_t last,
                         int block, uint32_t* out) {
    const BlockScales<element> scales(group.scales + block * block_rows);
    for (int64_t at = first; at < last; ++at) {
      const typename Codes::Square square = Codes::load_square(group.codes, group_k, at, block);
      LATHE_UNROLL_SQUARE
      for (int run = 0; run < runs; ++run) LATHE_UNROLL_SQUARE
      for (int pair = 0; pair < pairs_of_run; ++pair) {
        BlockWords<element> words;
        Codes::decode(self.codes, square, run, pair, scales, words);
#pragma GCC unroll 2
        for (auto& unit : words.units) {
#pragma GCC unroll 4
          for (int j = 0; j < block_vectors; ++j) store_words(out + j * lanes, unit[j]);
          out += panel_width;
        }
      }
    }
  }
};

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

// Adds the chains of a slab to a tile's totals, the last of them continued by second.
template <class Step, int chains, int rows, int vectors>
LATHE_INLINE void finish_chains(Vec (&sums)[chains][rows][vectors], const Stretch& second, float* accumulators,
                                bool begins, int64_t column) {
  multiply_run<Step>(sums[chains - 1], second.left, second.right + column, second.units);
#pragma GCC unroll 4
  for (int chain = 0; chain < chains; ++chain) add_chain(accumulators + column, sums[chain], begins && chain == 0);
}

// Blocks of rows side by side: what the registers hold besides scales, codes and a table.
constexpr int blocks_at_once(int rows) { return lanes == 16 ? 2 : lanes == 8 && rows == 1 ? 2 : 1; }

template <class Codes, Element element, int rows>
void multiply_quantized(const QuantizedStretch& first, Stretch second, float* accumulators, bool begins,
                        int64_t columns) {
  using Step = typename StepFor<rows, element>::Step;
  constexpr int blocks = blocks_at_once(rows);
  constexpr int64_t k_per_unit = element == Element::bf16 ? 2 : 1;
  constexpr int units = BlockWords<element>::count;
  static_assert(Step::chains == 1 || (runs == Step::chains && pairs_of_run == gemm::chain_run));
  const Codes codes{};
  const Right& right = first.right;
  const int64_t first_group = first.first_unit * k_per_unit / right.group,
                last_group = first.last_unit * k_per_unit / right.group;
  for (int64_t column = 0; column < columns; column += blocks * block_rows) {
    Vec sums[blocks][Step::chains][rows][block_vectors];
#pragma GCC unroll 2
    for (auto& block : sums) clear(block);
    const uint32_t* left = first.left;
    constexpr int columns_at_once = blocks * block_rows;
    AskedEarly early(first, first_group, last_group, gemm::quantized_group_bytes(right.format, right.group),
                     column / columns_at_once, panel_width / columns_at_once);
    for (int64_t g = first_group; g < last_group; ++g) {
      const GroupAt group = group_at(right, first.panel, g);
      if constexpr (Codes::asks_early) early.ask();
      BlockScales<element> scales[blocks];
#pragma GCC unroll 2
      for (int b = 0; b < blocks; ++b) scales[b] = BlockScales<element>(group.scales + column + b * block_rows);
      for (int64_t at = 0; at < right.group / gemm::decoded_k; ++at) {
        typename Codes::Square squares[blocks];
#pragma GCC unroll 2
        for (int b = 0; b < blocks; ++b)
          squares[b] = Codes::load_square(group.codes, right.group, at, column / block_rows + b);
        const auto multiply_run = [&](int run) __attribute__((always_inline)) {
          const int chain = Step::chains == 1 ? 0 : run;
#pragma GCC unroll 4
          for (int pair = 0; pair < pairs_of_run; ++pair, left += units * rows * Step::left_words) {
#pragma GCC unroll 2
            for (int b = 0; b < blocks; ++b) {
              BlockWords<element> words;
              Codes::decode(codes, squares[b], run, pair, scales[b], words);
#pragma GCC unroll 2
              for (int unit = 0; unit < units; ++unit)
                Step::multiply(sums[b][chain], left + unit * rows * Step::left_words, words.units[unit]);
            }
          }
        };
        if constexpr (Step::chains > 1 && rows == 1) {  // sums of all chains in registers
#pragma GCC unroll 4
          for (int run = 0; run < runs; ++run) multiply_run(run);
        } else {
#pragma GCC unroll 1
          for (int run = 0; run < runs; ++run) multiply_run(run);
        }
      }
    }
#pragma GCC unroll 2
    for (int b = 0; b < blocks; ++b)
      finish_chains<Step>(sums[b], second, accumulators, begins, column + b * block_rows);
  }
}

#if defined(LATHE_AVX512)
// int8 into f32: a line is a pair of neighbours of a panel's 32 rows, read as 16 words of which each holds an even row below an odd one. So
// rows lie apart until the end, and one shift serves 64 weights where widening each half took two of the same ports.
struct EvenAndOdd {
  Vec even, odd;
  LATHE_INLINE explicit EvenAndOdd(const float* rows) {
    const Vec a = load(rows), b = load(rows + lanes);
    even = __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    odd = __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
  }
};

template <int rows>
void multiply_lines(const QuantizedStretch& first, Stretch second, float* accumulators, bool begins, int64_t) {
  static_assert(panel_width == 2 * lanes);
  using Step = F32Step<rows, 1>;
  const Right& right = first.right;
  const int64_t group_bytes = gemm::quantized_group_bytes(QuantizedFormat::int8, right.group);
  const int64_t first_group = first.first_unit / right.group, last_group = first.last_unit / right.group;
  const uint32_t* left = first.left;
  Vec sums[2][rows][1];
  clear(sums);
  for (int64_t g = first_group; g < last_group; ++g) {
    const GroupAt group = group_at(right, first.panel, g);
    const EvenAndOdd scales(group.scales);
    const uint8_t* line = group.codes;
#pragma GCC unroll 4
    for (int64_t k = 0; k < right.group; k += 2, line += 2 * panel_width, left += 2 * rows) {
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

#if defined(LATHE_ISA_avx512_bf16)
constexpr int fours = panel_width / 4;  // of rows that share a pair of vectors as tables
constexpr int fours_of_block = 4;

LATHE_INLINE Nf4RowTables tables_of(const Nf4Table& codebook, const GroupAt& group, int four) {
  return Nf4RowTables::of(codebook, group.scales + four / fours_of_block * block_rows + four % fours_of_block);
}

struct FillingFromTables {
  Nf4Table codebook = nf4_table();
  static LATHE_INLINE void fill(const FillingFromTables& self, const GroupAt& group, int64_t group_k, int64_t first,
                         int64_t last, int block, uint32_t* out) {
    Nf4RowTables tables[fours_of_block];
#pragma GCC unroll 4
    for (int i = 0; i < fours_of_block; ++i) tables[i] = tables_of(self.codebook, group, block * fours_of_block + i);
    for (int64_t at = first; at < last; ++at, out += runs * pairs_of_run * panel_width) {
      const uint8_t* codes = group.codes + block * fours_of_block * gemm::nf4_four_bytes(group_k) + at * 64;
      Nf4Places places[fours_of_block];
#pragma GCC unroll 4
      for (int i = 0; i < fours_of_block; ++i) places[i] = Nf4Places::of(codes + i * gemm::nf4_four_bytes(group_k));
#pragma GCC unroll 4
      for (int pair = 0; pair < pairs_of_run; ++pair) {
        Vec words[fours_of_block];
#pragma GCC unroll 4
        for (int i = 0; i < fours_of_block; ++i) words[i] = (Vec)Nf4Places::look_up(places[i], pair, tables[i]);
        transpose_squares(words);
#pragma GCC unroll 4
        for (int run = 0; run < runs; ++run)
          store_words(out + (run * pairs_of_run + pair) * panel_width, (VecU)words[run]);
      }
    }
  }
};

// Sums of `at_once` fours of rows stay in registers for all groups of the slab, those of `together` share what is loaded of the left
// operand. The lanes of a sum are four rows × four chains.
template <int rows, int squares>
void multiply_tables(const QuantizedStretch& first, Stretch second, float* accumulators, bool begins, int64_t) {
  constexpr int at_once = rows <= 2 ? 8 : 4, together = rows == 1 ? 2 : rows == 2 ? 1 : 4;
  using Step = PairStep<rows, 1>;
  const Nf4Table codebook = nf4_table();
  const Right& right = first.right;
  constexpr int64_t group_k = squares * gemm::decoded_k, four_bytes = gemm::nf4_four_bytes(group_k);
  constexpr int64_t group_bytes = gemm::quantized_group_bytes(QuantizedFormat::nf4, group_k);
  const int64_t first_group = 2 * first.first_unit / group_k, last_group = 2 * first.last_unit / group_k;
  Vec all[fours][rows];
  for (int begin = 0; begin < fours; begin += at_once) {
    Vec sums[1][at_once][rows];
    clear(sums);
    const uint32_t* left = first.left;
    AskedEarly early(first, first_group, last_group, group_bytes, begin / at_once, fours / at_once);
    for (int64_t g = first_group; g < last_group; ++g) {
      const GroupAt group = group_at(right, first.panel, g);
      early.ask();
#pragma GCC unroll 8
      for (int four = 0; four < at_once; four += together) {
        Nf4RowTables tables[together];
#pragma GCC unroll 4
        for (int i = 0; i < together; ++i) tables[i] = tables_of(codebook, group, begin + four + i);
        const uint8_t* codes = group.codes + (begin + four) * four_bytes;
        const uint32_t* words = left;
#pragma GCC unroll 2
        for (int square = 0; square < squares; ++square, words += rows * lanes) {
          Nf4Places places[together];
#pragma GCC unroll 4
          for (int i = 0; i < together; ++i) places[i] = Nf4Places::of(codes + i * four_bytes + square * 64);
#pragma GCC unroll 4
          for (int pair = 0; pair < pairs_of_run; ++pair) {
            __m512bh weights[together];
#pragma GCC unroll 4
            for (int i = 0; i < together; ++i) weights[i] = (__m512bh)Nf4Places::look_up(places[i], pair, tables[i]);
#pragma GCC unroll 4
            for (int row = 0; row < rows; ++row) {
              const __m512bh x = (__m512bh)_mm512_broadcast_i32x4(
                  _mm_loadu_si128(reinterpret_cast<const __m128i*>(words + row * lanes + pair * 4)));
#pragma GCC unroll 4
              for (int i = 0; i < together; ++i) {
                Vec& sum = sums[0][four + i][row];
                sum = (Vec)_mm512_dpbf16_ps((__m512)sum, x, weights[i]);
              }
            }
          }
        }
      }
      left += rows * group_k / 2;
    }
#pragma GCC unroll 8
    for (int four = 0; four < at_once; ++four)
#pragma GCC unroll 4
      for (int row = 0; row < rows; ++row) all[begin + four][row] = sums[0][four][row];
  }
  for (int block = 0; block < fours / fours_of_block; ++block) {
    Vec chains[Step::chains][rows][1];
#pragma GCC unroll 4
    for (int row = 0; row < rows; ++row) {
      Vec words[fours_of_block];
      for (int i = 0; i < fours_of_block; ++i) words[i] = all[block * fours_of_block + i][row];
      transpose_squares(words);
      for (int chain = 0; chain < Step::chains; ++chain) chains[chain][row][0] = words[chain];
    }
    finish_chains<Step>(chains, second, accumulators, begins, block * block_rows);
  }
}

template <int rows>
QuantizedTileKernel tables_kernel_for(int64_t group) {
  return group == gemm::decoded_k ? multiply_tables<rows, 1> : multiply_tables<rows, 2>;
}
QuantizedTileKernel tables_kernel_for(int64_t rows, int64_t group) {
  switch (rows) {
    case 1: return tables_kernel_for<1>(group);
    case 2: return tables_kernel_for<2>(group);
    case 3: return tables_kernel_for<3>(group);
    case 4: return tables_kernel_for<4>(group);
  }
  __builtin_unreachable();
}
using Nf4Pairs = FillingFromTables;
#else
using Nf4Pairs = Decoding<Nf4Codes, Element::bf16>;
#endif

template <class Codes, Element element, int rows>
constexpr QuantizedTileKernel kernel_of_rows() {
#if defined(LATHE_AVX512)
  if constexpr (std::is_same_v<Codes, Int8Codes> && element == Element::f32) return multiply_lines<rows>;
#endif
  return multiply_quantized<Codes, element, rows>;
}

template <class Codes, Element element>
QuantizedTileKernel kernel_for(int64_t rows) {
  switch (rows) {
    case 1: return kernel_of_rows<Codes, element, 1>();
    case 2: return kernel_of_rows<Codes, element, 2>();
    case 3: return kernel_of_rows<Codes, element, 3>();
    case 4: return kernel_of_rows<Codes, element, 4>();
  }
  __builtin_unreachable();
}

}  // namespace

void dequantize_panel(const Right& right, Element element, int64_t panel, int64_t first_k, int64_t last_k,
                      uint32_t* slab) {
  const bool nf4 = right.format == QuantizedFormat::nf4;
  if (element == Element::bf16)
    return nf4 ? fill_slab<Nf4Pairs>(right, element, panel, first_k, last_k, slab)
               : fill_slab<Decoding<Int8Codes, Element::bf16>>(right, element, panel, first_k, last_k, slab);
  return nf4 ? fill_slab<Decoding<Nf4Codes, Element::f32>>(right, element, panel, first_k, last_k, slab)
             : fill_slab<Decoding<Int8Codes, Element::f32>>(right, element, panel, first_k, last_k, slab);
}

QuantizedTileKernel quantized_kernel_for(const Right& right, Element element, int64_t rows) {
  const bool nf4 = right.format == QuantizedFormat::nf4;
  if (element == Element::f32)
    return nf4 ? kernel_for<Nf4Codes, Element::f32>(rows) : kernel_for<Int8Codes, Element::f32>(rows);
  if (!nf4) return kernel_for<Int8Codes, Element::bf16>(rows);
#if defined(LATHE_ISA_avx512_bf16)
  return tables_kernel_for(rows, right.group);
#else
  return kernel_for<Nf4Codes, Element::bf16>(rows);
#endif
}

}  // namespace lathe::kernels::LATHE_ISA
