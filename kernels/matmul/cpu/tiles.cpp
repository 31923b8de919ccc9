// The product's loops: slabs of a panel that stay in the second-level cache, tiles of rows that stay in registers.
#include "kernels/matmul/cpu/pack.h"
#include "kernels/matmul/cpu/quantized.h"
#include "kernels/matmul/cpu/steps.h"
#include "kernels/matmul/cpu/gemm.h"
#include "kernels/simd/transpose.h"

namespace lathe::kernels::LATHE_ISA {
namespace {

using gemm::Block;
using gemm::Element;
using gemm::Matrix;
using gemm::panel_width;
using gemm::Problem;
using gemm::Right;
using gemm::RightLayout;
using gemm::units_of;

constexpr int max_rows = gemm::tile_rows(Isa::LATHE_ISA);

// Adds chain `chain` of a slab to the sums, from the places of the tile and of the panel where the slab begins. The hardware does not
// follow runs with gaps: with many rows the chain's next run is asked for. Where no other tile has read the panel before, each
// chain asks for a quarter of the slab that follows: 16 rows take 2.6 ms for 4096 x 4096, without 4.4 (one chain in order: 3.0).
template <class Step, int chains, int rows, int vectors>
LATHE_INLINE void multiply_chain(Vec (&sums)[rows][vectors], const Stretch& stretch, int chain, int64_t column) {
  constexpr int64_t lines = panel_width * 4 / 64;
  if constexpr (chains == 1) {
    multiply_run<Step>(sums, stretch.left, stretch.right + column, stretch.units);
  } else {
    constexpr int64_t run = gemm::chain_run, round = run * chains;
    const uint32_t* left = stretch.left + chain * run * rows * Step::left_words;
    const uint32_t* right = stretch.right + column + chain * run * panel_width;
    const uint32_t* ahead = stretch.ahead;
    if (ahead != nullptr) ahead += chain * (stretch.units / round) * run * panel_width;
    int64_t unit = chain * run;
    for (; unit + run <= stretch.units; unit += round) {
#pragma GCC unroll 4
      for (int j = 0; j < run; ++j) {
        if (ahead != nullptr)
          for (int64_t line = 0; line < lines; ++line) __builtin_prefetch(ahead + (j * lines + line) * 16, 0, 2);
        for (int64_t line = 0; line < lines; ++line) __builtin_prefetch(right + (round + j) * panel_width + line * 16);
        multiply_panel<Step>(sums, left + j * rows * Step::left_words, right + j * panel_width);
      }
      if (ahead != nullptr) ahead += run * panel_width;
      left += round * rows * Step::left_words, right += round * panel_width;
    }
    multiply_run<Step>(sums, left, right, stretch.units - unit);
  }
}

// All chains at once, in the order of memory: their sums in registers, or fetched for each run.
template <class Step, bool in_registers, int chains, int rows, int vectors>
LATHE_INLINE void multiply_chains(Vec (&sums)[chains][rows][vectors], const Stretch& stretch, int64_t column) {
  constexpr int64_t run = gemm::chain_run;
  const uint32_t* left = stretch.left;
  const uint32_t* right = stretch.right + column;
  int64_t unit = 0;
  const auto multiply_next = [&](int chain) __attribute__((always_inline)) {
#pragma GCC unroll 4
    for (int j = 0; j < run; ++j, left += rows * Step::left_words, right += panel_width)
      multiply_panel<Step>(sums[chain], left, right);
  };
  for (; unit + run * chains <= stretch.units; unit += run * chains) {
    if constexpr (in_registers) {
#pragma GCC unroll 4
      for (int chain = 0; chain < chains; ++chain) multiply_next(chain);
    } else {
#pragma GCC unroll 1
      for (int chain = 0; chain < chains; ++chain) multiply_next(chain);
    }
  }
#pragma GCC unroll 4
  for (int chain = 0; chain < chains; ++chain)
    for (int j = 0; j < run && unit < stretch.units; ++j, ++unit, left += rows * Step::left_words, right += panel_width)
      multiply_panel<Step>(sums[chain], left, right);
}

// The first `columns` of a panel, rounded up to whole vectors; `wanted` of them fill at least as many columns. A few rows work on
// all chains at once: what bounds them is a panel that comes from memory, and it is read in its order (4 rows: 1.5 ms for 4096 x 4096,
// chain by chain 1.7 to 3.3).
//
// Tried and left: prefetching the left operand 0.5 to 4 KB ahead (within 1 % either way), prefetching the panel 1 to 8 KB
// ahead for one row (5 to 25 % slower: the hardware's streams do better alone).
template <int rows, template <int, int> class Step, int wanted>
void multiply_tile(Stretch first, Stretch second, float* accumulators, bool begins, int64_t columns) {
  constexpr int vectors = vectors_at_once(rows, wanted);
  using S = Step<rows, vectors>;
  constexpr int chains = S::chains;
  constexpr bool at_once = chains > 1 && rows <= 7, in_registers = rows <= 3;
  for (int64_t column = 0; column < columns; column += vectors * lanes) {
    if constexpr (at_once) {
      Vec sums[chains][rows][vectors];
      clear(sums);
      multiply_chains<S, in_registers>(sums, first, column);
      multiply_run<S>(sums[chains - 1], second.left, second.right + column, second.units);
#pragma GCC unroll 4
      for (int chain = 0; chain < chains; ++chain)
        if (!is_left_out(chain, chains, first, second))
          add_chain(accumulators + column, sums[chain], begins && chain == 0);
    } else {
#pragma GCC unroll 1
      for (int chain = 0; chain < chains; ++chain) {
        if (is_left_out(chain, chains, first, second)) continue;
        Vec sums[1][rows][vectors];
        clear(sums);
        multiply_chain<S, chains>(sums[0], first, chain, column);
        if (chain == chains - 1) multiply_run<S>(sums[0], second.left, second.right + column, second.units);
        add_chain(accumulators + column, sums[0], begins && chain == 0);
      }
    }
  }
}

using TileKernel = void (*)(Stretch, Stretch, float*, bool, int64_t);

template <template <int, int> class Step, int wanted>
TileKernel kernel_for(int64_t rows) {
  switch (rows) {
    case 1: return multiply_tile<1, Step, wanted>;
    case 2: return multiply_tile<2, Step, wanted>;
    case 3: return multiply_tile<3, Step, wanted>;
    case 4: return multiply_tile<4, Step, wanted>;
#if defined(LATHE_AVX2) || defined(LATHE_AVX512)
    case 5: return multiply_tile<5, Step, wanted>;
    case 6: return multiply_tile<6, Step, wanted>;
#endif
#if defined(LATHE_AVX512)
    case 7: return multiply_tile<7, Step, wanted>;
    case 8: return multiply_tile<8, Step, wanted>;
    case 9: return multiply_tile<9, Step, wanted>;
    case 10: return multiply_tile<10, Step, wanted>;
    case 11: return multiply_tile<11, Step, wanted>;
    case 12: return multiply_tile<12, Step, wanted>;
    case 13: return multiply_tile<13, Step, wanted>;
    case 14: return multiply_tile<14, Step, wanted>;
#endif
  }
  __builtin_unreachable();
}

// A LoRA product has 4 to 16 columns: half a panel.
TileKernel kernel_for(Element element, int64_t rows, int64_t columns) {
  constexpr int half = panel_vectors / 2;
  if (columns <= half * lanes)
    return element == Element::bf16 ? kernel_for<PairStep, half>(rows) : kernel_for<F32Step, half>(rows);
  return element == Element::bf16 ? kernel_for<PairStep, panel_vectors>(rows)
                                  : kernel_for<F32Step, panel_vectors>(rows);
}

template <class T>
LATHE_INLINE Vec load_columns(const void* row, int64_t column, int count) {
  const T* p = static_cast<const T*>(row) + column;
  return count == lanes ? load(p) : load_partial(p, count);
}
template <class T>
LATHE_INLINE void store_columns(void* row, int64_t column, Vec v, int count) {
  T* p = static_cast<T*>(row) + column;
  if (count == lanes) {
    store(p, v);
  } else {
    store_partial(p, v, count);
  }
}

LATHE_INLINE char* row_of(const Matrix& matrix, int64_t row) {
  return static_cast<char*>(matrix.data) + row * matrix.stride * (matrix.element == Element::bf16 ? 2 : 4);
}
LATHE_INLINE Vec load_matrix(const Matrix& matrix, int64_t row, int64_t column, int count) {
  const char* p = row_of(matrix, row);
  return matrix.element == Element::bf16 ? load_columns<bf16>(p, column, count) : load_columns<float>(p, column, count);
}

// The lines that write_tile will touch, asked for before the tile's sums are computed: rows of out lie far apart, and a weight's
// gradient is read and written from memory.
LATHE_INLINE void prefetch_tile(const Problem& problem, int64_t first_row, int64_t rows, int64_t first_column) {
  const Matrix& matrix = problem.residual.data != nullptr ? problem.residual : problem.out;
  const int64_t element = matrix.element == Element::bf16 ? 2 : 4, bytes = panel_width * element;
  for (int64_t i = 0; i < rows; ++i) {
    const char* row = row_of(matrix, first_row + i) + first_column * element;
    for (int64_t offset = 0; offset < bytes; offset += 64) __builtin_prefetch(row + offset, 1);
  }
}

// out = scale · sums + bias + residual, in that order, rounded once.
void write_tile(const Problem& problem, const float* accumulators, int64_t first_row, int64_t rows,
                int64_t first_column) {
  const int64_t columns = problem.n - first_column < panel_width ? problem.n - first_column : panel_width;
  const Vec scale = splat(problem.scale);
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < columns; j += lanes) {
      const int count = columns - j < lanes ? static_cast<int>(columns - j) : lanes;
      const int64_t column = first_column + j;
      Vec v = load(accumulators + i * panel_width + j) * scale;
      if (problem.bias.data != nullptr) v = v + load_matrix(problem.bias, 0, column, count);
      if (problem.residual.data != nullptr) v = v + load_matrix(problem.residual, first_row + i, column, count);
      char* row = row_of(problem.out, first_row + i);
      if (problem.out.element == Element::bf16) {
        store_columns<bf16>(row, column, v, count);
      } else {
        store_columns<float>(row, column, v, count);
      }
    }
  }
}

// Units [first, last) of a panel: where they lie, or packed into `slab`.
const uint32_t* panel_slab(const Right& right, Element element, int64_t k, int64_t n, int64_t panel, int64_t first,
                           int64_t last, uint32_t* slab) {
  if (right.layout == RightLayout::panels)
    return static_cast<const uint32_t*>(right.data) + (panel * right.stride + first) * panel_width;
  pack_panel(right, element, k, n, panel, first, last, slab);
  return slab;
}

}  // namespace

void gemm_block(const Block& block) {
  const Problem& problem = *block.problem;
  const Element element = problem.element;
  constexpr int64_t accumulator_tile = max_rows * panel_width;
  const int64_t left_words = gemm::left_words(Isa::LATHE_ISA, element);
  const int64_t units2 = block.ends ? units_of(problem.k2, element) : 0;
  const int64_t slab_units = gemm::slab_units(Isa::LATHE_ISA, element);
  const bool fused = gemm::fuses_codes(problem);

  for (int64_t panel = block.first_panel; panel < block.last_panel; ++panel) {
    float* panel_accumulators = block.accumulators + (panel - block.first_panel) * block.accumulator_panel_stride;
    const uint32_t* slab2 =
        units2 == 0 ? nullptr
                    : panel_slab(problem.right2, element, problem.k2, problem.n, panel, 0, units2, block.slab2);
    const int64_t columns_left = problem.n - panel * panel_width;
    const int64_t columns = columns_left < panel_width ? columns_left : panel_width;
    int64_t first = block.first_unit;
    do {  // once even when there is nothing to reduce
      const int64_t last = block.last_unit - first < slab_units ? block.last_unit : first + slab_units;
      const bool begins = block.begins && first == block.first_unit;
      const bool ends = last == block.last_unit;
      const uint32_t* slab = first == last || fused ? nullptr
                                                    : panel_slab(problem.right, element, problem.k, problem.n, panel,
                                                                 first, last, block.slab);
      for (int64_t tile = block.first_tile; tile < block.last_tile; ++tile) {
        const int64_t row = block.tiling.first_row(tile);
        const int64_t rows = block.tiling.first_row(tile + 1) - row;
        float* accumulators = panel_accumulators + (tile - block.first_tile) * accumulator_tile;
        const uint32_t* left =
            block.left + tile * block.left_tile_stride + (first - block.first_unit) * rows * left_words;
        const Stretch two = {block.left2 + tile * block.left2_tile_stride, slab2, ends ? units2 : 0};
        if (ends && block.ends) prefetch_tile(problem, block.row_offset + row, rows, panel * panel_width);
        if (fused) {
          quantized_kernel_for(problem.right, element, rows)({problem.right, panel, first, last, left}, two,
                                                             accumulators, begins, columns);
        } else {
          const bool first_reads = block.last_tile - block.first_tile <= 2 && tile == block.first_tile &&
                                   problem.right.layout == RightLayout::panels;
          const uint32_t* ahead = first_reads ? slab + (last - first) * panel_width : nullptr;
          kernel_for(element, rows, columns)({left, slab, last - first, ahead}, two, accumulators, begins, columns);
        }
        if (ends && block.ends) write_tile(problem, accumulators, block.row_offset + row, rows, panel * panel_width);
      }
      first = last;
    } while (first < block.last_unit);
  }
}

}  // namespace lathe::kernels::LATHE_ISA
