// A few rows times a narrow matrix: all sums of a panel in registers, in the order of every product (blocking.h).
#include "kernels/matmul/cpu/bodies.h"
#include "kernels/matmul/cpu/k_step.h"
#include "kernels/matmul/cpu/matrix_rows.h"

namespace lathe::kernels::LATHE_ISA {
namespace {

using gemm::narrow_width;

constexpr int narrow_vectors = narrow_width / lanes;
constexpr int most_rows = lanes == 4 ? 2 : 4;  // whose sums the registers hold

// `rows` rows of the left operand, and a panel.
template <int rows>
struct NarrowTile {
  const char* left[rows];
  const uint32_t* right;
};

template <class Step, int rows>
LATHE_INLINE void multiply_narrow(Vec (&sums)[rows][narrow_vectors], const NarrowTile<rows>& tile, int64_t step) {
  uint32_t words[rows * Step::left_words];
#pragma GCC unroll 4
  for (int i = 0; i < rows; ++i) {
    uint32_t word;
    __builtin_memcpy(&word, tile.left[i] + 4 * step, 4);
    words[i] = Step::left_words == 1 ? word : word << 16;
    if (Step::left_words == 2) words[rows * (Step::left_words - 1) + i] = word & 0xffff0000u;
  }
  multiply_panel<Step>(sums, words, tile.right + step * narrow_width);
}

// The chains of k steps [first, last), a k block, added to the totals in order.
template <class Step, int rows>
LATHE_INLINE void add_block(Vec (&totals)[rows][narrow_vectors], const NarrowTile<rows>& tile, int64_t first,
                            int64_t last) {
  constexpr int64_t turn = gemm::chain_steps;
  Vec sums[Step::chains][rows][narrow_vectors];
  clear(sums);
  int64_t step = first;
  for (; step + turn * Step::chains <= last; step += turn * Step::chains) {
#pragma GCC unroll 4
    for (int chain = 0; chain < Step::chains; ++chain)
#pragma GCC unroll 4
      for (int j = 0; j < turn; ++j) multiply_narrow<Step>(sums[chain], tile, step + chain * turn + j);
  }
#pragma GCC unroll 4
  for (int chain = 0; chain < Step::chains; ++chain)
    for (int j = 0; j < turn && step < last; ++j, ++step) multiply_narrow<Step>(sums[chain], tile, step);
#pragma GCC unroll 4
  for (int chain = 0; chain < Step::chains; ++chain) {
    if (is_left_out(chain, Step::chains, last - first, {})) continue;
#pragma GCC unroll 4
    for (int i = 0; i < rows; ++i)
#pragma GCC unroll 4
      for (int j = 0; j < narrow_vectors; ++j)
        totals[i][j] = first == 0 && chain == 0 ? sums[chain][i][j] : totals[i][j] + sums[chain][i][j];
  }
}

template <template <int, int> class Step, int rows>
void shrink_tile(const ShrinkArgs& args, int64_t row) {
  const int64_t steps = gemm::k_steps(args.k, args.dtype);
  const int64_t block_steps = gemm::k_block_steps(Isa::LATHE_ISA, args.dtype);
  NarrowTile<rows> tile{{}, args.panels};
  for (int i = 0; i < rows; ++i) tile.left[i] = row_of(args.left, row + i);
  for (int64_t column = 0; column < args.n; column += narrow_width, tile.right += steps * narrow_width) {
    Vec totals[rows][narrow_vectors];
    int64_t first = 0;
    do {  // once even when there is nothing to reduce
      const int64_t last = steps - first < block_steps ? steps : first + block_steps;
      add_block<Step<rows, narrow_vectors>>(totals, tile, first, last);
      first = last;
    } while (first < steps);
    for (int i = 0; i < rows; ++i)
      for (int j = 0; j < narrow_vectors && column + j * lanes < args.n; ++j) {
        const int64_t left = args.n - column - j * lanes;
        store_matrix(args.out, row + i, column + j * lanes, totals[i][j] * splat(args.scale),
                     left < lanes ? static_cast<int>(left) : lanes);
      }
  }
}

template <template <int, int> class Step>
void shrink(const ShrinkArgs& args) {
  int64_t row = 0;
  for (; row + most_rows <= args.rows; row += most_rows) shrink_tile<Step, most_rows>(args, row);
  for (; row < args.rows; ++row) shrink_tile<Step, 1>(args, row);
}

}  // namespace
}  // namespace lathe::kernels::LATHE_ISA

namespace lathe::kernels {

template <Isa>
void shrink_rows(const ShrinkArgs& args) {
  args.dtype == DType::bf16 ? LATHE_ISA::shrink<LATHE_ISA::PairStep>(args)
                            : LATHE_ISA::shrink<LATHE_ISA::F32Step>(args);
}
template void shrink_rows<Isa::LATHE_ISA>(const ShrinkArgs&);

}  // namespace lathe::kernels
