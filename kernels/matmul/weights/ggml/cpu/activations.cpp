// Rows of activations become 16-bit integers, in pairs or bytes, with a scale for each block of 32.
#include "kernels/matmul/weights/ggml/cpu/quantize.h"

namespace lathe::kernels::LATHE_ISA {
namespace {

LATHE_INLINE void quantize_to_pairs(const ggml::QuantizeRowsArgs& args) {
  quantize_tiles(args, [&](int64_t tile, int64_t row) {
    const int64_t rows = args.rows.rows_of(tile);
    uint32_t* const pairs = args.rows.tile_words(tile) + row * 16;
    return [=](int64_t b, int vector, VecI first, VecI second) __attribute__((always_inline)) {
      store_words(pairs + b * rows * 16 + vector * lanes / 2, pairs_of(first, second));
    };
  });
}

#if defined(LATHE_ISA_avx512_bf16)
LATHE_INLINE void store_bytes(uint32_t* at, VecI integers) {
  const __m128i bytes = _mm512_cvtepi32_epi8((__m512i)integers);
  __builtin_memcpy(at, &bytes, sizeof bytes);
}

LATHE_INLINE void quantize_to_bytes(const ggml::QuantizeRowsArgs& args) {
  constexpr int64_t words = ggml::words_of(ggml::Integers::bytes);
  quantize_tiles(args, [&](int64_t tile, int64_t row) {
    const int64_t rows = args.rows.rows_of(tile);
    uint32_t* const row_words = args.rows.tile_words(tile) + row * words;
    return [=](int64_t b, int, VecI first, VecI last) __attribute__((always_inline)) {
      uint32_t* const block = row_words + b * rows * words;
      const VecI high[2] = {first >> 8, last >> 8};
      store_bytes(block, high[0]);
      store_bytes(block + 4, high[1]);
      store_bytes(block + 8, first);
      store_bytes(block + 12, last);
      block[16] = static_cast<uint32_t>(128 * sum_of(high[0] + high[1]));
    };
  });
}
#endif

}  // namespace
}  // namespace lathe::kernels::LATHE_ISA

namespace lathe::kernels::ggml {

template <Isa>
void quantize_rows(const QuantizeRowsArgs& args) {
#if defined(LATHE_ISA_avx512_bf16)
  if (args.rows.integers == Integers::bytes) return LATHE_ISA::quantize_to_bytes(args);
#endif
  LATHE_ISA::quantize_to_pairs(args);
}
template void quantize_rows<Isa::LATHE_ISA>(const QuantizeRowsArgs&);

}  // namespace lathe::kernels::ggml
