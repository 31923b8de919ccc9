// Products of bf16 by tiles of AMX: up to 32 rows times a panel of 32 columns are four tiles of sums, and a step of 16
// words along k takes four loads and four multiplications, which come to the same time. All rows go this way, one as
// well as thousands, so that a row's sums have the same order in every batch.
#include "kernels/matmul/cpu/tile_loop.h"
#include "kernels/simd/amx.h"

namespace lathe::kernels::LATHE_ISA {
namespace {

using gemm::panel_width;

constexpr int64_t row_bytes = panel_width * 4;  // of a panel, and of a tile's sums

// The shape of a tile of the product, in tiles of AMX.
struct Shape {
  int rows, columns;  // 1 or 2
};
// Tiles 0 … 3 hold the sums of [rows][columns], 4 and 5 the left operand's rows, 6 and 7 the panel's columns.

template <class Each>
LATHE_INLINE void each_sum(Shape shape, Each each) {
  each.template operator()<0, 0>();
  if (shape.columns == 2) each.template operator()<0, 1>();
  if (shape.rows == 2) each.template operator()<1, 0>();
  if (shape.rows == 2 && shape.columns == 2) each.template operator()<1, 1>();
}

// The sums of tile (i, j) in memory. One row stands for all 16 of a tile: `stride` is 0.
struct Sums {
  float* data;
  int64_t stride;
  template <int i, int j>
  LATHE_INLINE float* tile() const {
    return data + i * gemm::amx_side * panel_width + j * gemm::amx_side;
  }
};

template <Shape shape>
LATHE_INLINE void load_sums(const Sums& sums, bool begins) {
  each_sum(
      shape, [&]<int i, int j>() __attribute__((always_inline)) {
        begins ? zero_tile<2 * i + j>() : load_tile<2 * i + j>(sums.tile<i, j>(), sums.stride);
      });
}
template <Shape shape>
LATHE_INLINE void store_sums(const Sums& sums) {
  each_sum(
      shape, [&]<int i, int j>()
                 __attribute__((always_inline)) { store_tile<2 * i + j>(sums.tile<i, j>(), sums.stride); });
}

// 16 words along k of the operands: left [16 · shape.rows][16 words], or where left_stride is 0 one row of it.
struct Square {
  const uint32_t *left, *right;
};

template <Shape shape>
LATHE_INLINE void load_square(Square square, int64_t left_stride) {
  load_tile<4>(square.left, left_stride);
  load_tile<6>(square.right, row_bytes);
  if constexpr (shape.rows == 2) load_tile<5>(square.left + gemm::amx_side * gemm::amx_side, left_stride);
  if constexpr (shape.columns == 2) load_tile<7>(square.right + gemm::amx_side, row_bytes);
}

// Multiplies the square that was loaded, each tile of which makes room for the next square's as soon as it has been
// read. Where the core's other thread is busy, loads and multiplications hardly overlap: a multiplication with its load
// takes 64 cycles this way and 75 where all loads come first (alone, both take 15.5: the multiplication's own).
template <Shape shape>
LATHE_INLINE void multiply_square(Square next, int64_t left_stride) {
  multiply_pairs<0, 4, 6>();
  if constexpr (shape.columns == 2) multiply_pairs<1, 4, 7>();
  load_tile<4>(next.left, left_stride);
  if constexpr (shape.rows == 2) multiply_pairs<2, 5, 6>();
  load_tile<6>(next.right, row_bytes);
  if constexpr (shape.rows == 2 && shape.columns == 2) multiply_pairs<3, 5, 7>();
  if constexpr (shape.rows == 2) load_tile<5>(next.left + gemm::amx_side * gemm::amx_side, left_stride);
  if constexpr (shape.columns == 2) load_tile<7>(next.right + gemm::amx_side, row_bytes);
}

// The words of a panel that do not fill a tile, and zeros: what a panel has after them may be anything.
struct LastWords {
  alignas(64) uint32_t words[gemm::amx_side * panel_width];
  LATHE_INLINE LastWords(const uint32_t* right, int64_t steps) {
    if (steps == 0) return;
    for (int64_t word = 0; word < gemm::amx_side * panel_width; word += lanes)
      store_words(words + word, word < steps * panel_width ? load_words(right + word) : VecU{});
  }
};

template <Shape shape>
LATHE_INLINE void multiply_range(const KRange& range, int64_t left_stride) {
  constexpr int64_t side = gemm::amx_side, right_words = side * panel_width;
  const int64_t left_words = left_stride == 0 ? side : shape.rows * side * side;
  const int64_t whole = range.steps / side;
  const LastWords last(range.right + whole * right_words, range.steps % side);
  const auto square = [&](int64_t i) __attribute__((always_inline)) {
    return Square{range.left + i * left_words, i < whole ? range.right + i * right_words : last.words};
  };
  const int64_t squares = gemm::whole_amx_sides(range.steps) / side;
  if (squares == 0) return;
  const uint32_t* next_block = range.prefetch;
  load_square<shape>(square(0), left_stride);
  for (int64_t i = 1; i < squares; ++i) {
    if (next_block != nullptr) {
      for (int64_t line = 0; line < right_words; line += 16) __builtin_prefetch(next_block + line, 0, 2);
      next_block += right_words;
    }
    multiply_square<shape>(square(i), left_stride);
  }
  multiply_square<shape>(square(squares - 1), left_stride);  // loads what it has once more
}

// Second pairs of rows that have their own, each added to its row's sums.
template <Shape shape>
LATHE_INLINE void add_rows_own(const TileStep& step) {
  constexpr Shape one_row = {1, shape.columns};
  for (int64_t i = 0; i < step.rows; ++i) {
    if (step.second.of_rows[i].steps == 0) continue;
    const Sums sums = {step.accumulators + i * panel_width, 0};
    load_sums<one_row>(sums, false);
    multiply_range<one_row>(step.second.of_rows[i], 0);
    store_sums<one_row>(sums);
  }
}

template <Shape shape>
void multiply_shape(const TileStep& step, const KRange& first) {
  const bool one_row = step.rows == 1;
  const Sums sums = {step.accumulators, one_row ? 0 : row_bytes};
  const int64_t left_stride = one_row ? 0 : gemm::amx_side * 4;
  load_sums<shape>(sums, step.begins);
  multiply_range<shape>(first, left_stride);
  if (step.second.of_rows == nullptr) multiply_range<shape>(step.second.all, left_stride);
  store_sums<shape>(sums);
  if (step.second.of_rows != nullptr) add_rows_own<shape>(step);
}

void multiply_step(const MultiplyTilesArgs& args, const TileStep& step) {
  const bool reads_first = reads_panels_in_memory(args) && reads_once(args) && step.tile == args.first_tile;
  const int64_t steps = step.last - step.first;
  const KRange first = {step.left, step.right, steps, reads_first ? step.right + steps * panel_width : nullptr};
  const bool one_row_tile = step.rows <= gemm::amx_side, one_column_tile = step.columns <= gemm::amx_side;
  if (one_row_tile)
    return one_column_tile ? multiply_shape<Shape{1, 1}>(step, first) : multiply_shape<Shape{1, 2}>(step, first);
  one_column_tile ? multiply_shape<Shape{2, 1}>(step, first) : multiply_shape<Shape{2, 2}>(step, first);
}

}  // namespace
}  // namespace lathe::kernels::LATHE_ISA

namespace lathe::kernels {

template <Isa>
void multiply_tiles(const MultiplyTilesArgs& args) {
  const TileScope tiles;
  loop_over_tiles(args, [&](const TileStep& step) { multiply_step(args, step); });
}
template void multiply_tiles<Isa::LATHE_ISA>(const MultiplyTilesArgs&);

}  // namespace lathe::kernels
