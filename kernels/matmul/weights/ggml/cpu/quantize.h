// Rows of activations as 16-bit integers with a scale for each block of 32, whatever form a set keeps the integers in.
// For this folder's and amx/'s sources only.
#pragma once

#include "kernels/matmul/weights/ggml/bodies.h"
#include "kernels/simd/transpose.h"

namespace lathe::kernels::LATHE_ISA {

inline constexpr float largest_integer = 32767.0f;
inline constexpr float least_magnitude = 0x1p-100f;  // below it 32767 / |x| comes near infinity
inline constexpr int block_vectors = ggml::block / lanes;

// The nearest whole numbers of |v| < 2^22, even ones of two that are as near.
LATHE_INLINE VecI nearest_integers(Vec v) {
  const Vec magic = splat(12582912.0f);  // 1.5 · 2^23
  return (VecI)(v + magic) - (VecI)magic;
}

// Infinity for a NaN, too, which a maximum could lose.
LATHE_INLINE Vec magnitude(Vec v) {
  const Vec positive = abs(v), infinity = splat(__builtin_inff());
  return select((VecI)(positive < infinity), positive, infinity);
}

// Of 16 integers of 16 bits: exact in f32, whose lanes are added in fewer steps.
LATHE_INLINE int32_t sum_of(VecI v) { return static_cast<int32_t>(sum_lanes(__builtin_convertvector(v, Vec))); }

// 2 · lanes neighbours, integers of 16 bits or what stands for them, as pairs: in each quad (0, 2) and (1, 3).
LATHE_INLINE VecU pairs_of(VecI first, VecI second) {
  const auto quads = [](VecI v) __attribute__((always_inline)) {
    const VecU words = (VecU)v;
#if defined(LATHE_AVX512)
    const VecU later = __builtin_shufflevector(words, words, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13);
#elif defined(LATHE_AVX2)
    const VecU later = __builtin_shufflevector(words, words, 2, 3, 0, 1, 6, 7, 4, 5);
#else
    const VecU later = __builtin_shufflevector(words, words, 2, 3, 0, 1);
#endif
    return (words & 0xffffu) | (later << 16);
  };
  const VecU a = quads(first), b = quads(second);
#if defined(LATHE_AVX512)
  return __builtin_shufflevector(a, b, 0, 1, 4, 5, 8, 9, 12, 13, 16, 17, 20, 21, 24, 25, 28, 29);
#elif defined(LATHE_AVX2)
  return __builtin_shufflevector(a, b, 0, 1, 4, 5, 8, 9, 12, 13);
#else
  return __builtin_shufflevector(a, b, 0, 1, 4, 5);
#endif
}

// Blocks of a row of `rows` in a tile. store(block, vector, first, second): the integers of 2 · lanes neighbours, which
// begin `vector` · lanes into the block.
template <class T, class Store>
LATHE_INLINE void quantize_row(const T* x, int64_t blocks, int64_t rows, ggml::BlockScale* scales, const Store& store) {
  for (int64_t b = 0; b < blocks; ++b, x += ggml::block, scales += rows) {
    Vec values[block_vectors], largest = zero();
    for (int j = 0; j < block_vectors; ++j) {
      values[j] = load(x + j * lanes);
      largest = max(largest, magnitude(values[j]));
    }
    const float limit = max_lanes(largest);
    const bool infinite = limit == __builtin_inff();
    const float factor = limit < least_magnitude || infinite ? 0.0f : largest_integer / limit;
    VecI sums[2] = {};
    for (int j = 0; j < block_vectors; j += 2) {
      VecI integers[2];
      for (int i = 0; i < 2; ++i) {
        const Vec v = infinite ? zero() : values[j + i];
        integers[i] = nearest_integers(v * splat(factor));
        sums[(j + i) * 2 / block_vectors] += integers[i];
      }
      store(b, j, integers[0], integers[1]);
    }
    const float scale = infinite ? __builtin_nanf("") : factor == 0.0f ? 0.0f : limit / largest_integer;
    const int32_t first = sum_of(sums[0]), last = sum_of(sums[1]);
    *scales = {scale, scale * static_cast<float>(first + last), {first, last}};
  }
}

// quantize_row of the rows of args, where store_of(tile, row of it) is what stores a row's integers.
template <class StoreOf>
LATHE_INLINE void quantize_tiles(const ggml::QuantizeRowsArgs& args, const StoreOf& store_of) {
  const int64_t blocks = args.rows.blocks;
  for (int64_t tile = args.first; tile < args.last; ++tile) {
    const int64_t first = args.rows.tiling.first_row(tile), rows = args.rows.rows_of(tile);
    for (int64_t i = 0; i < rows; ++i) {
      ggml::BlockScale* scales = args.rows.tile_scales(tile) + i;
      const int64_t at = (first + i) * args.x.stride;
      if (args.x.dtype == DType::bf16) {
        quantize_row(static_cast<const bf16*>(args.x.data) + at, blocks, rows, scales, store_of(tile, i));
      } else {
        quantize_row(static_cast<const float*>(args.x.data) + at, blocks, rows, scales, store_of(tile, i));
      }
    }
  }
}

}  // namespace lathe::kernels::LATHE_ISA
