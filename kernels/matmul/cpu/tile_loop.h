// The loops of a product over k blocks of some panels, which stay in the second-level cache, and over tiles of rows.
// What adds up a tile's sums is the caller's. For kernels/matmul's sources only.
#pragma once

#include "kernels/matmul/cpu/k_step.h"
#include "kernels/matmul/cpu/pack_right.h"
#include "kernels/matmul/cpu/write_tile.h"

namespace lathe::kernels::LATHE_ISA {

#if defined(LATHE_ISA_amx)
inline constexpr Isa packing_isa = Isa::avx512_bf16;  // the words of panels are the same
inline constexpr int max_rows = gemm::tile_rows(Isa::amx, DType::bf16);
#else
inline constexpr Isa packing_isa = Isa::LATHE_ISA;
inline constexpr int max_rows = gemm::tile_rows(Isa::LATHE_ISA, DType::f32);
#endif

// One or two tiles read their panels once.
inline bool reads_once(const MultiplyTilesArgs& args) { return args.last_tile - args.first_tile <= 2; }

// Whether tiles widen pairs of bf16 for a product of f32, whose k steps and blocks they keep to: the bits are the same.
// More tiles share a panel that is widened for them, as prompts of 512 tokens are 8 % slower without (AVX2).
inline bool widens_in_registers(const MultiplyTilesArgs& args) {
  return args.product->panels.widens && args.product->layout == ProductLayout::rows_rows && reads_once(args);
}

// Whether tiles read a weight's words where they lie.
inline bool reads_panels_in_memory(const MultiplyTilesArgs& args) {
  const WeightPanels& panels = args.product->panels;
  return panels.data != nullptr && panels.group == 0 && args.product->layout == ProductLayout::rows_rows &&
         (!panels.widens || reads_once(args));
}

// Where the words of k steps [first, last) of some panels are: where they lie, or packed into args.panel.
inline void find_panels(const MultiplyTilesArgs& args, int64_t first_panel, int64_t last_panel, int64_t first,
                        int64_t last, const uint32_t* (&found)[gemm::most_panels_at_once]) {
  const ProductArgs& product = *args.product;
  const WeightPanels& panels = product.panels;
  uint32_t* words = args.panel;
  const bool in_memory = reads_panels_in_memory(args);
  const int64_t first_word = (widens_in_registers(args) ? first / 2 : first) * gemm::panel_width;
  const int64_t distance = (last - first) * gemm::panel_width;
  if (panels.data == nullptr)
    pack_dense_panels<packing_isa>({product.right, product.layout, product.k, product.n, first_panel, last_panel},
                                   first, last, words, distance);
  for (int64_t panel = first_panel; panel < last_panel; ++panel, words += distance) {
    if (panels.data != nullptr && !in_memory) pack_weight_panel<packing_isa>(product, panel, first, last, words);
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
      of_rows[i] = {own.left, right, gemm::k_steps(pair.k, product.dtype)};
    }
    return {all, of_rows};
  }

 private:
  uint32_t* words_of(int64_t panel, int64_t pair) const {
    const auto several = static_cast<int64_t>(args_.product->second_pairs.size());
    const int64_t place = (panel - first_panel_) * (several > 1 ? several : 1) + pair;
    return args_.panel2 + place * args_.second_steps * gemm::panel_width;
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
    pack_dense_panels<packing_isa>({right, product.layout, k, product.n, panel, panel + 1}, 0,
                                   gemm::k_steps(k, product.dtype), words, 0);
  }

  const MultiplyTilesArgs& args_;
  int64_t first_panel_;
};

// A tile's sums over k steps [first, last) of a panel, whose words are `right` where it is not decoded in registers.
struct TileStep {
  int64_t panel, tile, first, last;
  const uint32_t* right;
  float* accumulators;
  int64_t rows = 0, columns = 0;
  const uint32_t* left = nullptr;
  bool begins = false;  // the sums are not there yet
  SecondRange second = {};
};

// Second right operands of rows that have their own are read by no other row.
LATHE_INLINE void prefetch_second(const SecondRange& second, int64_t rows) {
  if (second.of_rows == nullptr) return;
  for (int64_t i = 0; i < rows; ++i) {
    const KRange& own = second.of_rows[i];
    for (int64_t word = 0; word < own.steps * gemm::panel_width; word += 16) __builtin_prefetch(own.right + word);
  }
}

// multiply(step) adds a step to its accumulators.
template <class Multiply>
LATHE_INLINE void multiply_one(const MultiplyTilesArgs& args, const SecondPanels& second_panels, TileStep step,
                               const Multiply& multiply) {
  constexpr Isa isa = Isa::LATHE_ISA;
  const ProductArgs& product = *args.product;
  const int64_t first_column = step.panel * gemm::panel_width;
  const int64_t row = args.tiling.first_row(step.tile);
  step.columns = product.n - first_column < gemm::panel_width ? product.n - first_column : gemm::panel_width;
  step.rows = args.tiling.first_row(step.tile + 1) - row;
  step.left = args.left + step.tile * args.left_tile_stride +
              (step.first - args.first_step) * gemm::left_rows(isa, product.dtype, step.rows) *
                  gemm::left_words(isa, product.dtype);
  step.begins = args.begins && step.first == args.first_step;
  const bool ends = args.ends && step.last == args.last_step;
  KRange of_rows[max_rows];
  if (ends) step.second = second_panels.of(step.panel, step.tile, of_rows);
  if (ends) prefetch_tile(product, args.row_offset + row, step.rows, first_column);
  if (ends) prefetch_second(step.second, step.rows);
  if (!step.begins) prefetch_sums(step.accumulators, step.rows);
  multiply(step);
  if (ends) write_tile(product, step.accumulators, args.row_offset + row, step.rows, first_column);
}

// Over some panels at once: a tile's left operand over a k block comes into the first-level cache once for all of them,
// and their words stay in the second-level cache for all tiles.
template <class Multiply>
LATHE_INLINE void loop_over_tiles(const MultiplyTilesArgs& args, const Multiply& multiply) {
  const ProductArgs& product = *args.product;
  const int64_t block_steps = gemm::k_block_steps(Isa::LATHE_ISA, product.dtype);
  const bool in_registers = decodes_in_registers(product, Isa::LATHE_ISA);

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
                       {.panel = panel,
                        .tile = tile,
                        .first = first,
                        .last = last,
                        .right = right[panel - first_panel],
                        .accumulators = args.accumulators + (panel - kept_from) * args.accumulator_panel_stride +
                                        (tile - args.first_tile) * args.accumulator_tile_stride},
                       multiply);
      first = last;
    } while (first < args.last_step);
  }
}

}  // namespace lathe::kernels::LATHE_ISA
