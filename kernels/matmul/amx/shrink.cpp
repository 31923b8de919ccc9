// A few rows times a narrow matrix, in the order of every product of AMX (blocking.h): rows as they lie, a panel of 16
// columns a tile.
#include "kernels/matmul/cpu/bodies.h"
#include "kernels/matmul/cpu/matrix_rows.h"
#include "kernels/simd/amx.h"
#include "kernels/simd/transpose.h"

namespace lathe::kernels::LATHE_ISA {
namespace {

constexpr int64_t side = gemm::amx_side;
static_assert(gemm::narrow_width == side);

// Sums of one row, or of 16 that are `stride` bytes apart, with a panel, into tile 0.
LATHE_INLINE void multiply_panel(const char* left, int64_t stride, const uint32_t* right, int64_t steps) {
  zero_tile<0>();
  int64_t step = 0;
  for (; step + side <= steps; step += side) {
    load_tile<1>(left + 4 * step, stride);
    load_tile<2>(right + step * side, side * 4);
    multiply_pairs<0, 1, 2>();
  }
  if (step == steps) return;
  alignas(64) uint32_t last_left[side * side] = {}, last_right[side * side] = {};
  for (int64_t i = 0; i < (stride == 0 ? 1 : side); ++i)
    store_words(last_left + i * side, load_words(left + i * stride + 4 * step, static_cast<int>(steps - step)));
  for (int64_t i = 0; i < steps - step; ++i) store_words(last_right + i * side, load_words(right + (step + i) * side));
  load_tile<1>(last_left, stride == 0 ? 0 : side * 4);
  load_tile<2>(last_right, side * 4);
  multiply_pairs<0, 1, 2>();
}

void shrink(const ShrinkArgs& args, int64_t row, int64_t rows) {
  const int64_t steps = args.k / 2, stride = rows == 1 ? 0 : args.left.stride * 2;
  const uint32_t* right = args.panels;
  alignas(64) float sums[side * side];
  for (int64_t column = 0; column < args.n; column += side, right += steps * side) {
    multiply_panel(row_of(args.left, row), stride, right, steps);
    store_tile<0>(sums, rows == 1 ? 0 : side * 4);
    const int count = static_cast<int>(args.n - column < lanes ? args.n - column : lanes);
    for (int64_t i = 0; i < rows; ++i)
      store_matrix(args.out, row + i, column, load(sums + i * side) * splat(args.scale), count);
  }
}

}  // namespace
}  // namespace lathe::kernels::LATHE_ISA

namespace lathe::kernels {

template <Isa>
void shrink_rows(const ShrinkArgs& args) {
  const TileScope tiles;
  int64_t row = 0;
  for (; row + gemm::amx_side <= args.rows; row += gemm::amx_side) shrink(args, row, gemm::amx_side);
  for (; row < args.rows; ++row) shrink(args, row, 1);
}
template void shrink_rows<Isa::LATHE_ISA>(const ShrinkArgs&);

}  // namespace lathe::kernels
