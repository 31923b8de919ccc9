// ggml's blocks in device code: numbers out of a tile's stage (tiles.h), in global or shared memory.
//
// A value is code · step (+ minimum), as the file's reader computes it: its products are exact in f32, d · sc · code in
// 23 bits, so that the fused multiply-add that adds a minimum rounds as a multiplication and an addition do.
#pragma once

#include <type_traits>

#include "kernels/cuda/row.h"
#include "kernels/matmul/weights/ggml/cuda/grid_decode.cuh"
#include "kernels/matmul/weights/ggml/tiles.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

// Four bytes of Format::values, with 128 added, for four indices, each in a byte.
template <class Format>
__device__ __forceinline__ uint32_t look_up(uint32_t four) {
  using ggml::word_of_values;
  const uint32_t pairs = four | four >> 4, indices = __byte_perm(pairs, 0, 0x4420);  // four of 4 bits
  const uint32_t low = __byte_perm(word_of_values<Format, 0>, word_of_values<Format, 1>, indices & 0x7777u);
  const uint32_t high = __byte_perm(word_of_values<Format, 2>, word_of_values<Format, 3>, indices & 0x7777u);
  return __byte_perm(low, high, (indices & 0x8888u) >> 1 | 0x3210u);
}

// The codes of one quarter of a row in half a stage: words 2 half and 2 half + 1. grid: where a format's grid is looked
// up, or anything.
template <class Format>
class StageCodes {
  using Place = ggml::Tiles<Format>;
  static constexpr int count = Place::low_bytes / 16;

 public:
  template <class Grid>
  __device__ __forceinline__ StageCodes(const uint8_t* stage, int row, int quarter, int half, const Grid&)
      : high_(high_bits(stage, row, quarter) >> (2 * (Place::bits - 4) * half)) {
    const uint8_t* low = stage + (row * 4 + quarter) * (4 * count) + half * (2 * count);
    if constexpr (count == 4) {
      const uint2 two = load_vector<uint2>(low);
      low_[0] = two.x, low_[1] = two.y;
    } else {
      low_[0] = load_vector<uint32_t>(low);
    }
  }
  // Four codes of the half's word i, a byte each. i is known at compile time.
  __device__ __forceinline__ uint32_t word(int i) const { return joined(low_[count == 4 ? i : 0], high_, i); }

  // One word alone, any.
  template <class Grid>
  static __device__ __forceinline__ uint32_t word_at(const uint8_t* stage, int row, int quarter, int i, const Grid&) {
    const uint8_t* low = stage + (row * 4 + quarter) * (4 * count) + 4 * (count == 4 ? i : i / 2);
    return joined(load_vector<uint32_t>(low), high_bits(stage, row, quarter), i);
  }

 private:
  static __device__ __forceinline__ uint32_t high_bits(const uint8_t* stage, int row, int quarter) {
    const uint8_t* high = stage + Place::high_at;
    if constexpr (Place::bits == 5)
      return load_vector<uint32_t>(high + (row * 2 + quarter / 2) * 4) >> (4 * (quarter % 2));
    if constexpr (Place::bits == 6) return load_vector<uint32_t>(high + (row * 4 + quarter) * 4);
    return 0;
  }

  static __device__ __forceinline__ uint32_t joined(uint32_t low, uint32_t high, int i) {
    if constexpr (Place::bits == 8) return low;
    const uint32_t four = low >> (4 * (i % 2)) & 0x0f0f0f0fu;
    if constexpr (ggml::HasValues<Format>) return look_up<Format>(four);
    if constexpr (Place::bits == 5) return four | (high << (4 - i) & 0x10101010u);
    if constexpr (Place::bits == 6) return four | ((i < 2 ? high << (4 - 2 * i) : high >> (2 * i - 4)) & 0x30303030u);
    return four;
  }

  uint32_t low_[count / 2], high_;
};

template <ggml::HasGrid Format>
class StageCodes<Format> {
 public:
  template <class Grid>
  __device__ __forceinline__ StageCodes(const uint8_t* stage, int row, int quarter, int half, const Grid& grid) {
    const GridHalf<Format> codes(stage, row, half);
    const uint32_t signs = codes.signs_of(quarter);
    LATHE_UNROLL
    for (int i = 0; i < 2; ++i) words_[i] = codes.word(i, quarter, signs, grid);
  }
  __device__ __forceinline__ uint32_t word(int i) const { return words_[i]; }

  template <class Grid>
  static __device__ __forceinline__ uint32_t word_at(const uint8_t* stage, int row, int quarter, int i,
                                                     const Grid& grid) {
    const GridHalf<Format> codes(stage, row, i / 2);
    const uint32_t signs = codes.signs_of(quarter);
    return i % 2 == 0 ? codes.word(0, quarter, signs, grid) : codes.word(1, quarter, signs, grid);
  }

 private:
  uint32_t words_[2];
};

// Byte b of a word as a part of a number's mantissa, which is exact: a conversion would take a quarter of the
// multiprocessor's arithmetic. `above` is the number that comes with it.
struct MantissaByte {
  float value, above;
};
__device__ __forceinline__ MantissaByte mantissa_of_7_bits(uint32_t word, int b) {
  return {__uint_as_float(__byte_perm(word, 0x43000000u, 0x7044u | static_cast<unsigned>(b) << 8)), 128.0f};
}
__device__ __forceinline__ MantissaByte mantissa_of_8_bits(uint32_t word, int b) {
  return {__uint_as_float(__byte_perm(word, 0x47000000u, 0x7404u | static_cast<unsigned>(b) << 4)), 32768.0f};
}
__device__ __forceinline__ float byte_of(uint32_t word, int b) {
  const MantissaByte byte = mantissa_of_8_bits(word, b);
  return byte.value - byte.above;
}

// The half-th f16, or bf16, of a word.
__device__ __forceinline__ float bf16_of(uint32_t word, int half) {
  return __uint_as_float(half == 0 ? word << 16 : word & 0xffff0000u);
}
__device__ __forceinline__ float f16_of(uint32_t word, int half) {
  const auto bits = static_cast<uint16_t>(word >> (16 * half));
  f16_t value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return to_float(value);
}

// The f16 factors of a K format's block, as they lie there; nothing in others.
template <class Format>
__device__ __forceinline__ uint32_t read_factors(const uint8_t* factors, int64_t block, int row) {
  using Place = ggml::Tiles<Format>;
  const uint8_t* from = factors + (block * Place::rows + row) * Place::factor_bytes;
  if constexpr (Place::factor_bytes == 4) return load_vector<uint32_t>(from);
  if constexpr (Place::factor_bytes == 2) return load_vector<uint16_t>(from);
  return 0;
}

template <class Format>
struct Scale {
  using Place = ggml::Tiles<Format>;
  float step, minimum;  // minimum: where the format has one

  // What code b of a word stands for.
  __device__ __forceinline__ float value(uint32_t word, int b) const {
    const MantissaByte byte = mantissa(word, b);
    const float code = byte.value - (byte.above + Place::zero);
    if constexpr (Place::has_minimum) return fmaf(code, step, minimum);
    return code * step;
  }

  // The same as a factor of a sum's terms, which do not show the sign of a zero, for finite scales: an instruction less
  // where there is no minimum. (above + zero) · step is exact: 5 bits by 11, for int8 9 by 11, for Q6_K 3 by 18, for
  // Q3_K 6 by 17; for IQ4_XS it would not be, and for MXFP4 it might overflow.
  __device__ __forceinline__ float factor(uint32_t word, int b) const {
    if constexpr (Place::has_minimum || ggml::HasValues<Format>) return value(word, b);
    const MantissaByte byte = mantissa(word, b);
    return fmaf(byte.value, step, -((byte.above + Place::zero) * step));
  }

 private:
  static __device__ __forceinline__ MantissaByte mantissa(uint32_t word, int b) {
    if constexpr (Place::decoded_bits == 8) return mantissa_of_8_bits(word, b);
    return mantissa_of_7_bits(word, b);
  }
};

// The scales of a row in a stage, or in half of one, whose words then count from 0.
template <class Format>
class StageScales {
  using Place = ggml::Tiles<Format>;
  static constexpr int bytes = Place::scale_bytes;

 public:
  __device__ __forceinline__ StageScales(const uint8_t* stage, int row, uint32_t factors) : factors_(factors) {
    load<bytes>(stage + Place::scales_at + row * bytes);
  }
  __device__ __forceinline__ StageScales(const uint8_t* stage, int row, uint32_t factors, int half)
      : factors_(factors) {
    load<bytes / 2>(stage + Place::scales_at + row * bytes + half * (bytes / 2));
  }

  // Of word i.
  __device__ __forceinline__ Scale<Format> of(int i) const {
    const int half = i / 2;
    if constexpr (!Place::is_k && Place::has_minimum) {
      const uint32_t both = half == 0 ? words_[0] : words_[1];
      return {f16_of(both, 0), f16_of(both, 1)};
    } else if constexpr (std::is_same_v<Format, ggml::MXFP4>) {
      return {bf16_of(words_[0], half), 0.0f};
    } else if constexpr (!Place::is_k) {
      return {f16_of(words_[0], half), 0.0f};
    } else if constexpr (Place::has_minimum && Format::scales == 2) {
      const uint32_t steps = words_[0] & 0x0f0f0f0fu, minima = words_[0] >> 4 & 0x0f0f0f0fu;
      return {f16_of(factors_, 0) * byte_of(steps, i), -(f16_of(factors_, 1) * byte_of(minima, i))};
    } else if constexpr (Place::has_minimum) {
      const uint32_t both = words_[0] >> (16 * half);
      return {f16_of(factors_, 0) * byte_of(both, 0), -(f16_of(factors_, 1) * byte_of(both, 1))};
    } else {
      return {f16_of(factors_, 0) * (byte_of(words_[0], Format::scales == 2 ? i : half) - 128.0f), 0.0f};
    }
  }

 private:
  template <int loaded>
  __device__ __forceinline__ void load(const uint8_t* from) {
    if constexpr (loaded == 8) {
      const uint2 two = load_vector<uint2>(from);
      words_[0] = two.x, words_[1] = two.y;
    } else if constexpr (loaded == 4) {
      words_[0] = load_vector<uint32_t>(from);
    } else if constexpr (loaded == 2) {
      words_[0] = load_vector<uint16_t>(from);
    } else {
      words_[0] = load_vector<uint8_t>(from);
    }
  }

  uint32_t words_[(bytes + 3) / 4] = {}, factors_;
};

template <ggml::HasGrid Format>
class StageScales<Format> {
 public:
  __device__ __forceinline__ StageScales(const uint8_t* stage, int row, uint32_t factors, int half = 0)
      : stage_(stage), row_(row), half_(half), step_(f16_of(factors, 0) * Format::unit) {}
  __device__ __forceinline__ Scale<Format> of(int i) const {
    return {step_ * byte_of(GridHalf<Format>::odd_scale(stage_, row_, half_ + i / 2, i % 2), 0), 0.0f};
  }

 private:
  const uint8_t* stage_;
  int row_, half_;
  float step_;
};

// Calls body.operator()<Format>() with the struct of a format.
template <class Body>
__device__ __forceinline__ void with_ggml_format(GgmlFormat format, const Body& body) {
  switch (format) {
    case GgmlFormat::q4_0: return body.template operator()<ggml::Q4_0>();
    case GgmlFormat::q4_1: return body.template operator()<ggml::Q4_1>();
    case GgmlFormat::q5_0: return body.template operator()<ggml::Q5_0>();
    case GgmlFormat::q5_1: return body.template operator()<ggml::Q5_1>();
    case GgmlFormat::q8_0: return body.template operator()<ggml::Q8_0>();
    case GgmlFormat::q4_k: return body.template operator()<ggml::Q4_K>();
    case GgmlFormat::q5_k: return body.template operator()<ggml::Q5_K>();
    case GgmlFormat::q6_k: return body.template operator()<ggml::Q6_K>();
    case GgmlFormat::q2_k: return body.template operator()<ggml::Q2_K>();
    case GgmlFormat::q3_k: return body.template operator()<ggml::Q3_K>();
    case GgmlFormat::iq4_nl: return body.template operator()<ggml::IQ4_NL>();
    case GgmlFormat::iq4_xs: return body.template operator()<ggml::IQ4_XS>();
    case GgmlFormat::mxfp4: return body.template operator()<ggml::MXFP4>();
    case GgmlFormat::iq2_xxs: return body.template operator()<ggml::IQ2_XXS>();
    case GgmlFormat::iq2_xs: return body.template operator()<ggml::IQ2_XS>();
    case GgmlFormat::iq2_s: return body.template operator()<ggml::IQ2_S>();
    case GgmlFormat::iq3_xxs: return body.template operator()<ggml::IQ3_XXS>();
    case GgmlFormat::iq3_s: return body.template operator()<ggml::IQ3_S>();
    case GgmlFormat::iq1_s: return body.template operator()<ggml::IQ1_S>();
    case GgmlFormat::iq1_m: return body.template operator()<ggml::IQ1_M>();
  }
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
