// Tiles of rows whose sums stay in registers.
#include "kernels/matmul/cpu/codes.h"
#include "kernels/matmul/cpu/tile_loop.h"

namespace lathe::kernels::LATHE_ISA {
namespace {

using gemm::panel_width;

// Adds one chain of a k block to the sums. The hardware's prefetcher does not follow its k steps, which have gaps
// between them: the chain's next ones are prefetched. Where no other tile has read the panel before, each chain
// prefetches a quarter of the k block that follows: 16 rows take 2.6 ms for 4096 x 4096, without 4.4 (one chain in
// order: 3.0).
template <class Step, int chains, int rows, int vectors>
LATHE_INLINE void multiply_chain(Vec (&sums)[rows][vectors], const KRange& range, int chain, int64_t column) {
  constexpr int64_t lines = panel_width * 4 / 64;
  if constexpr (chains == 1) {
    multiply_steps<Step>(sums, range.left, range.right + column, range.steps);
  } else {
    constexpr int64_t turn = gemm::chain_steps, round = turn * chains;
    const uint32_t* left = range.left + chain * turn * rows * Step::left_words;
    const uint32_t* right = range.right + column + chain * turn * panel_width;
    const uint32_t* next_block = range.prefetch;
    if (next_block != nullptr) next_block += chain * (range.steps / round) * turn * panel_width;
    int64_t step = chain * turn;
    for (; step + turn <= range.steps; step += round) {
#pragma GCC unroll 4
      for (int j = 0; j < turn; ++j) {
        if (next_block != nullptr)
          for (int64_t line = 0; line < lines; ++line) __builtin_prefetch(next_block + (j * lines + line) * 16, 0, 2);
        for (int64_t line = 0; line < lines; ++line) __builtin_prefetch(right + (round + j) * panel_width + line * 16);
        multiply_panel<Step>(sums, left + j * rows * Step::left_words, right + j * panel_width);
      }
      if (next_block != nullptr) next_block += turn * panel_width;
      left += round * rows * Step::left_words, right += round * panel_width;
    }
    multiply_steps<Step>(sums, left, right, range.steps - step);
  }
}

// All chains at once, in the order of memory: their sums in registers, or loaded for each chain's turn.
template <class Step, bool in_registers, int chains, int rows, int vectors>
LATHE_INLINE void multiply_chains(Vec (&sums)[chains][rows][vectors], const KRange& range, int64_t column) {
  constexpr int64_t turn = gemm::chain_steps;
  const uint32_t* left = range.left;
  const uint32_t* right = range.right + column;
  int64_t step = 0;
  const auto multiply_next = [&](int chain) __attribute__((always_inline)) {
#pragma GCC unroll 4
    for (int j = 0; j < turn; ++j, left += rows * Step::left_words, right += panel_width)
      multiply_panel<Step>(sums[chain], left, right);
  };
  for (; step + turn * chains <= range.steps; step += turn * chains) {
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
    for (int j = 0; j < turn && step < range.steps; ++j, ++step, left += rows * Step::left_words, right += panel_width)
      multiply_panel<Step>(sums[chain], left, right);
}

// The first `columns` of a panel, rounded up to whole vectors, of which `wanted` cover them. A few rows work on all
// chains at once: what bounds them is a panel that comes from memory, and so it is read in the order of memory (4 rows:
// 1.5 ms for 4096 x 4096, chain by chain 1.7 to 3.3).
//
// Tried and left: prefetching the left operand 0.5 to 4 KB ahead (within 1 % either way), prefetching the panel 1 to 8
// KB ahead for one row (5 to 25 % slower: the hardware's prefetcher does better alone).
template <int rows, template <int, int> class Step, int wanted>
void multiply_tile(const KRange& first, const SecondRange& second, float* accumulators, bool begins, int64_t columns) {
  constexpr int vectors = vectors_at_once(rows, wanted);
  using S = Step<rows, vectors>;
  constexpr int chains = S::chains;
  constexpr bool at_once = chains > 1 && rows <= 7, in_registers = rows <= 3;
  for (int64_t column = 0; column < columns; column += vectors * lanes) {
    if constexpr (at_once) {
      Vec sums[chains][rows][vectors];
      clear(sums);
      multiply_chains<S, in_registers>(sums, first, column);
      multiply_second<S>(sums[chains - 1], first.steps, second, column);
#pragma GCC unroll 4
      for (int chain = 0; chain < chains; ++chain)
        if (!is_left_out(chain, chains, first.steps, second))
          add_chain(accumulators + column, sums[chain], begins && chain == 0);
    } else {
#pragma GCC unroll 1
      for (int chain = 0; chain < chains; ++chain) {
        if (is_left_out(chain, chains, first.steps, second)) continue;
        Vec sums[1][rows][vectors];
        clear(sums);
        multiply_chain<S, chains>(sums[0], first, chain, column);
        if (chain == chains - 1) multiply_second<S>(sums[0], first.steps, second, column);
        add_chain(accumulators + column, sums[0], begins && chain == 0);
      }
    }
  }
}

using TileKernel = void (*)(const KRange&, const SecondRange&, float*, bool, int64_t);

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
TileKernel kernel_for(const MultiplyTilesArgs& args, int64_t rows, int64_t columns) {
  constexpr int half = panel_vectors / 2;
  const DType dtype = args.product->dtype;
  if (widens_in_registers(args)) return kernel_for<WidenedStep, panel_vectors>(rows);
  if (columns <= half * lanes)
    return dtype == DType::bf16 ? kernel_for<PairStep, half>(rows) : kernel_for<F32Step, half>(rows);
  return dtype == DType::bf16 ? kernel_for<PairStep, panel_vectors>(rows) : kernel_for<F32Step, panel_vectors>(rows);
}

void multiply_step(const MultiplyTilesArgs& args, const TileStep& step) {
  const ProductArgs& product = *args.product;
  if (decodes_in_registers(product, Isa::LATHE_ISA)) {
    const CodeTileKernel kernel = with_format(product.panels.format, [&]<class Format>() {
      return code_tile_kernel<Format>(product.panels, product.dtype, step.rows);
    });
    return kernel({product.panels, step.panel, step.first, step.last, step.left}, step.second, step.accumulators,
                  step.begins, step.columns);
  }
  const bool reads_first = reads_panels_in_memory(args) && reads_once(args) && step.tile == args.first_tile;
  const int64_t steps = (step.last - step.first) / (widens_in_registers(args) ? 2 : 1);
  const uint32_t* prefetch = reads_first ? step.right + steps * panel_width : nullptr;
  kernel_for(args, step.rows, step.columns)({step.left, step.right, steps, prefetch}, step.second, step.accumulators,
                                            step.begins, step.columns);
}

}  // namespace
}  // namespace lathe::kernels::LATHE_ISA

namespace lathe::kernels {

template <Isa>
void multiply_tiles(const MultiplyTilesArgs& args) {
  loop_over_tiles(args, [&](const TileStep& step) { multiply_step(args, step); });
}
template void multiply_tiles<Isa::LATHE_ISA>(const MultiplyTilesArgs&);

}  // namespace lathe::kernels
