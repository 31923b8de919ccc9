// The product's loops: k blocks of some panels that stay in the second-level cache, tiles of rows whose sums stay in
// registers.
#include "kernels/matmul/cpu/bodies.h"
#include "kernels/matmul/cpu/codes.h"
#include "kernels/matmul/cpu/k_step.h"
#include "kernels/matmul/cpu/matrix_rows.h"
#include "kernels/matmul/cpu/pack_right.h"
#include "kernels/simd/transpose.h"

namespace lathe::kernels::LATHE_ISA {
namespace {

using gemm::k_steps;
using gemm::panel_width;

constexpr int max_rows = gemm::tile_rows(Isa::LATHE_ISA);

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

// One or two tiles read their panels once.
bool reads_once(const MultiplyTilesArgs& args) { return args.last_tile - args.first_tile <= 2; }

// Whether tiles widen pairs of bf16 for a product of f32, whose k steps and blocks they keep to: the bits are the same.
// More tiles share a panel that is widened for them, as prompts of 512 tokens are 8 % slower without (AVX2).
bool widens_in_registers(const MultiplyTilesArgs& args) {
  return args.product->panels.widens && args.product->layout == ProductLayout::rows_rows && reads_once(args);
}

// Whether tiles read a weight's words where they lie.
bool reads_panels_in_memory(const MultiplyTilesArgs& args) {
  const WeightPanels& panels = args.product->panels;
  return panels.data != nullptr && panels.group == 0 && args.product->layout == ProductLayout::rows_rows &&
         (!panels.widens || reads_once(args));
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

// Prefetches what write_tile will touch, before the tile's sums are computed: rows of out lie far apart, and a weight's
// gradient is read and written from memory.
LATHE_INLINE void prefetch_tile(const ProductArgs& product, int64_t first_row, int64_t rows, int64_t first_column) {
  const ProductMatrix& matrix = product.residual.data != nullptr ? product.residual : product.out;
  const int64_t element = element_bytes(matrix), bytes = panel_width * element;
  for (int64_t i = 0; i < rows; ++i) {
    const char* row = row_of(matrix, first_row + i) + first_column * element;
    for (int64_t offset = 0; offset < bytes; offset += 64) __builtin_prefetch(row + offset, 1);
  }
}

// The same for the sums of the k blocks before.
LATHE_INLINE void prefetch_sums(const float* accumulators, int64_t rows) {
  for (int64_t i = 0; i < rows * panel_width; i += 16) __builtin_prefetch(accumulators + i, 1);
}

// And for the second right operands of rows that have their own, which no other row reads.
LATHE_INLINE void prefetch_second(const SecondRange& second, int64_t rows) {
  if (second.of_rows == nullptr) return;
  for (int64_t i = 0; i < rows; ++i) {
    const KRange& own = second.of_rows[i];
    for (int64_t word = 0; word < own.steps * panel_width; word += 16) __builtin_prefetch(own.right + word);
  }
}

// out = scale · sums + bias + residual, in that order, rounded once.
void write_tile(const ProductArgs& product, const float* accumulators, int64_t first_row, int64_t rows,
                int64_t first_column) {
  const int64_t columns = product.n - first_column < panel_width ? product.n - first_column : panel_width;
  const Vec scale = splat(product.scale);
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < columns; j += lanes) {
      const int count = columns - j < lanes ? static_cast<int>(columns - j) : lanes;
      const int64_t column = first_column + j;
      Vec v = load(accumulators + i * panel_width + j) * scale;
      if (product.bias.data != nullptr) v = v + load_matrix(product.bias, 0, column, count);
      if (product.residual.data != nullptr) v = v + load_matrix(product.residual, first_row + i, column, count);
      store_matrix(product.out, first_row + i, column, v, count);
    }
  }
}

// Where the words of k steps [first, last) of some panels are: where they lie, or packed into args.panel.
void find_panels(const MultiplyTilesArgs& args, int64_t first_panel, int64_t last_panel, int64_t first, int64_t last,
                 const uint32_t* (&found)[gemm::most_panels_at_once]) {
  const ProductArgs& product = *args.product;
  const WeightPanels& panels = product.panels;
  uint32_t* words = args.panel;
  const bool in_memory = reads_panels_in_memory(args);
  const int64_t first_word = (widens_in_registers(args) ? first / 2 : first) * panel_width;
  const int64_t distance = (last - first) * panel_width;
  if (panels.data == nullptr)
    pack_dense_panels({product.right, product.layout, product.k, product.n, first_panel, last_panel}, first, last,
                      words, distance);
  for (int64_t panel = first_panel; panel < last_panel; ++panel, words += distance) {
    if (panels.data != nullptr && !in_memory) pack_weight_panel(product, panel, first, last, words);
    found[panel - first_panel] =
        in_memory ? static_cast<const uint32_t*>(panels.data) + panel * (panels.panel_bytes / 4) + first_word : words;
  }
}

// The right operands of the second pair, or pairs, of some panels.
class SecondPanels {
 public:
  // With those of the tiles' rows packed, where they are not.
  SecondPanels(const MultiplyTilesArgs& args, int64_t first_panel, int64_t last_panel)
      : args_(args), first_panel_(first_panel) {
    for (int64_t panel = first_panel; panel < last_panel && args.second_steps > 0; ++panel) pack(panel);
  }

  // `of_rows`: for those of the tile.
  SecondRange of(int64_t panel, int64_t tile, KRange (&of_rows)[max_rows]) const {
    const ProductArgs& product = *args_.product;
    const KRange all = {args_.left2 + tile * args_.left2_tile_stride, words_of(panel, 0), args_.second_steps};
    if (product.second_pairs.empty()) return {all};
    const int64_t row = args_.tiling.first_row(tile), rows = args_.tiling.first_row(tile + 1) - row;
    for (int64_t i = 0; i < rows; ++i) {
      const SecondRow& own = args_.second_rows[row + i];
      const SecondPair& pair = product.second_pairs[static_cast<size_t>(own.pair)];
      const uint32_t* right = pair.panels.data == nullptr ? words_of(panel, own.pair)
                                                          : static_cast<const uint32_t*>(pair.panels.data) +
                                                                panel * (pair.panels.panel_bytes / 4);
      of_rows[i] = {own.left, right, k_steps(pair.k, product.dtype)};
    }
    return {all, of_rows};
  }

 private:
  uint32_t* words_of(int64_t panel, int64_t pair) const {
    const auto several = static_cast<int64_t>(args_.product->second_pairs.size());
    const int64_t place = (panel - first_panel_) * (several > 1 ? several : 1) + pair;
    return args_.panel2 + place * args_.second_steps * panel_width;
  }

  void pack(int64_t panel) const {
    const ProductArgs& product = *args_.product;
    if (product.second_pairs.empty()) return pack(product.right2, product.k2, panel, words_of(panel, 0));
    const int64_t first_row = args_.tiling.first_row(args_.first_tile);
    const int64_t last_row = args_.tiling.first_row(args_.last_tile);
    for (int64_t pair = args_.second_rows[first_row].pair; pair <= args_.second_rows[last_row - 1].pair; ++pair) {
      const SecondPair& own = product.second_pairs[static_cast<size_t>(pair)];
      if (own.k > 0 && own.panels.data == nullptr) pack(own.right, own.k, panel, words_of(panel, pair));
    }
  }

  void pack(const ProductMatrix& right, int64_t k, int64_t panel, uint32_t* words) const {
    const ProductArgs& product = *args_.product;
    pack_dense_panels({right, product.layout, k, product.n, panel, panel + 1}, 0, k_steps(k, product.dtype), words, 0);
  }

  const MultiplyTilesArgs& args_;
  int64_t first_panel_;
};

// A tile's sums over k steps [first, last) of a panel, whose words are `right` where it is not decoded in registers.
struct TileStep {
  int64_t panel, tile, first, last;
  const uint32_t* right;
  float* accumulators;
};

void multiply_one(const MultiplyTilesArgs& args, const SecondPanels& second_panels, const TileStep& step) {
  const ProductArgs& product = *args.product;
  const int64_t first_column = step.panel * panel_width;
  const int64_t columns = product.n - first_column < panel_width ? product.n - first_column : panel_width;
  const int64_t row = args.tiling.first_row(step.tile), rows = args.tiling.first_row(step.tile + 1) - row;
  const int64_t left_words = gemm::left_words(Isa::LATHE_ISA, product.dtype);
  const uint32_t* left =
      args.left + step.tile * args.left_tile_stride + (step.first - args.first_step) * rows * left_words;
  const bool begins = args.begins && step.first == args.first_step;
  const bool ends = args.ends && step.last == args.last_step;
  KRange of_rows[max_rows];
  const SecondRange second = ends ? second_panels.of(step.panel, step.tile, of_rows) : SecondRange{};
  if (ends) prefetch_tile(product, args.row_offset + row, rows, first_column);
  if (ends) prefetch_second(second, rows);
  if (!begins) prefetch_sums(step.accumulators, rows);
  if (decodes_in_registers(product)) {
    const CodeTileKernel kernel = with_format(product.panels.format, [&]<class Format>() {
      return code_tile_kernel<Format>(product.panels, product.dtype, rows);
    });
    kernel({product.panels, step.panel, step.first, step.last, left}, second, step.accumulators, begins, columns);
  } else {
    const bool reads_first = reads_panels_in_memory(args) && reads_once(args) && step.tile == args.first_tile;
    const int64_t steps = (step.last - step.first) / (widens_in_registers(args) ? 2 : 1);
    const uint32_t* prefetch = reads_first ? step.right + steps * panel_width : nullptr;
    kernel_for(args, rows, columns)({left, step.right, steps, prefetch}, second, step.accumulators, begins, columns);
  }
  if (ends) write_tile(product, step.accumulators, args.row_offset + row, rows, first_column);
}

}  // namespace
}  // namespace lathe::kernels::LATHE_ISA

namespace lathe::kernels {

// Over some panels at once: a tile's left operand over a k block comes into the first-level cache once for all of them,
// and their words stay in the second-level cache for all tiles.
template <Isa>
void multiply_tiles(const MultiplyTilesArgs& args) {
  const ProductArgs& product = *args.product;
  const int64_t block_steps = gemm::k_block_steps(Isa::LATHE_ISA, product.dtype);
  const bool in_registers = decodes_in_registers(product);

  for (int64_t first_panel = args.first_panel; first_panel < args.last_panel; first_panel += args.panels_at_once) {
    const int64_t last_panel =
        args.last_panel - first_panel < args.panels_at_once ? args.last_panel : first_panel + args.panels_at_once;
    const int64_t kept_from = args.accumulators_of_all ? args.first_panel : first_panel;
    const SecondPanels second_panels(args, first_panel, last_panel);
    int64_t first = args.first_step;
    do {  // once even when there is nothing to reduce
      const int64_t last = args.last_step - first < block_steps ? args.last_step : first + block_steps;
      const uint32_t* right[gemm::most_panels_at_once] = {};
      if (first < last && !in_registers) find_panels(args, first_panel, last_panel, first, last, right);
      for (int64_t tile = args.first_tile; tile < args.last_tile; ++tile)
        for (int64_t panel = first_panel; panel < last_panel; ++panel)
          multiply_one(args, second_panels,
                       {panel, tile, first, last, right[panel - first_panel],
                        args.accumulators + (panel - kept_from) * args.accumulator_panel_stride +
                            (tile - args.first_tile) * args.accumulator_tile_stride});
      first = last;
    } while (first < args.last_step);
  }
}
template void multiply_tiles<Isa::LATHE_ISA>(const MultiplyTilesArgs&);

}  // namespace lathe::kernels
