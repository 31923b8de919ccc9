// Rows of activations become digits, which tiles multiply exactly.
#include "kernels/matmul/weights/ggml/cpu/quantize.h"

namespace lathe::kernels::LATHE_ISA {
namespace {

// Whole numbers that bf16 has, in the low half of words.
LATHE_INLINE VecI bf16_of(VecI integers) { return (VecI)((VecU) __builtin_convertvector(integers, Vec) >> 16); }

}  // namespace
}  // namespace lathe::kernels::LATHE_ISA

namespace lathe::kernels::ggml {

template <>
void quantize_rows<Isa::amx>(const QuantizeRowsArgs& args) {
  using namespace LATHE_ISA;
  const bool halves = args.rows.integers == Integers::digits_of_halves;
  quantize_tiles(args, [&](int64_t tile, int64_t row) {
    const int64_t rows = args.rows.rows_of(tile);
    uint32_t* const words = args.rows.tile_words(tile) + row * 16;
    return [=](int64_t b, int, VecI first, VecI last) __attribute__((always_inline)) {
      const VecI high[2] = {bf16_of(first & ~255), bf16_of(last & ~255)};
      const VecI low[2] = {bf16_of(first & 255), bf16_of(last & 255)};
      uint32_t* const block = words + b * 2 * rows * 16;
      store_words(block, halves ? pairs_of(high[0], low[0]) : pairs_of(high[0], high[1]));
      store_words(block + rows * 16, halves ? pairs_of(high[1], low[1]) : pairs_of(low[0], low[1]));
    };
  });
}

}  // namespace lathe::kernels::ggml
