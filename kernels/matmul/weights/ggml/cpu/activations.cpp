// Rows of activations become pairs of 16-bit integers with a scale for each block of 32.
#include "kernels/matmul/weights/ggml/cpu/quantize.h"

namespace lathe::kernels::ggml {

template <Isa>
void quantize_rows(const QuantizeRowsArgs& args) {
  using namespace LATHE_ISA;
  quantize_tiles(args, [&](int64_t tile, int64_t row) {
    const int64_t rows = args.rows.rows_of(tile);
    uint32_t* const pairs = args.rows.tile_words(tile) + row * 16;
    return [=](int64_t b, int vector, VecI first, VecI second) __attribute__((always_inline)) {
      store_words(pairs + b * rows * 16 + vector * lanes / 2, pairs_of(first, second));
    };
  });
}
template void quantize_rows<Isa::LATHE_ISA>(const QuantizeRowsArgs&);

}  // namespace lathe::kernels::ggml
