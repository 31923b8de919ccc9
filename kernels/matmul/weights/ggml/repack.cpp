// Codes are moved by words of 32 bits, many at a time, so that the start of a program does not feel it.
#include "kernels/matmul/weights/ggml/repack.h"

#include <cmath>

#include "kernels/matmul/weights/ggml/file_blocks.h"
#include "kernels/matmul/weights/ggml/plane_words.h"

namespace lathe::kernels::ggml {
namespace {

constexpr uint32_t nibble_of_bytes = 0x0f0f0f0fu;

void put_words(uint8_t* plane, int64_t lane, const std::byte* p, int64_t words) {
  for (int64_t t = 0; t < words; ++t) put_word(plane, t, lane, word_at(p + 4 * t));
}

// Nibbles of 32 bytes, all low ones or all high ones, two to a byte: 16 neighbours on, a neighbour is in the high half.
void put_nibbles(uint8_t* plane, int64_t lane, const std::byte* p, bool high) {
  const int shift = high ? 4 : 0;
  for (int64_t t = 0; t < 4; ++t) {
    const uint32_t first = (word_at(p + 4 * t) >> shift) & nibble_of_bytes;
    const uint32_t second = (word_at(p + 16 + 4 * t) >> shift) & nibble_of_bytes;
    put_word(plane, t, lane, first | second << 4);
  }
}

// Bit `bit` of 32 bytes.
void put_bit_of_bytes(uint8_t* plane, int64_t lane, const std::byte* p, int bit) {
  uint32_t word = 0;
  for (int t = 0; t < 8; ++t) word |= ((word_at(p + 4 * t) >> bit) & 0x01010101u) << t;
  put_word(plane, 0, lane, word);
}

// Bits shift, shift + 1 of 32 bytes.
void put_two_bits(uint8_t* plane, int64_t lane, const std::byte* p, int shift) {
  uint32_t words[2] = {};
  for (int t = 0; t < 8; ++t) words[t / 4] |= ((word_at(p + 4 * t) >> shift) & 0x03030303u) << (t % 4 * 2);
  put_word(plane, 0, lane, words[0]);
  put_word(plane, 1, lane, words[1]);
}

int nibble(const uint8_t* plane, int64_t lane, int64_t k) {
  return static_cast<int>(get_word(plane, k % 16 / 4, lane) >> (k % 4 * 8 + k / 16 * 4) & 15u);
}
int bit(const uint8_t* plane, int64_t lane, int64_t k) {
  return static_cast<int>(get_word(plane, 0, lane) >> (k % 4 * 8 + k / 4) & 1u);
}
int two_bits(const uint8_t* plane, int64_t lane, int64_t k) {
  return static_cast<int>(get_word(plane, k / 16, lane) >> (k % 4 * 8 + k / 4 % 4 * 2) & 3u);
}
int five_bits(const uint8_t* codes, int64_t lane, int64_t k) {
  return nibble(codes + bits_plane, lane, k) | bit(codes, lane, k) << 4;
}

int three_bits(const uint8_t* codes, int64_t lane, int64_t k) {
  return two_bits(codes + bits_plane, lane, k) | bit(codes, lane, k) << 2;
}

// As bytes.
void put_k_scales(uint8_t* unit, int64_t block_bytes, int64_t lane, const std::byte* packed) {
  for (int64_t j = 0; j < 8; ++j) {
    uint8_t* scales = unit + 2 * f16_scales + j * block_bytes;
    const KScale both = k_scale(packed, j);
    scales[lane] = both.scale;
    scales[byte_scales + lane] = both.minimum;
  }
}

// Values of a block with a minimum: the file reader's order of operations.
template <class Code>
void values_with_minimum(float step, float offset, const Code& code, float* values) {
  for (int64_t k = 0; k < block; ++k) values[k] = step * static_cast<float>(code(k)) - offset;
}

// Values of blocks in which 16 neighbours have a scale with a sign. code(codes, k): less what stands for 0.
template <class Format, class Code>
void values_of_halves(const uint8_t* unit, int64_t lane, const Code& code, float* values) {
  const float d = get_f16(unit, lane);
  for (int64_t j = 0; j < Format::elements / block; ++j) {
    const uint8_t* at = unit + Format::header + j * Format::block_bytes;
    for (int64_t k = 0; k < block; ++k) {
      const float step = d * static_cast<float>(static_cast<int8_t>(at[k / 16 * byte_scales + lane]));
      values[j * block + k] = step * static_cast<float>(code(at + Format::codes, k));
    }
  }
}

// Values of a block whose codes are indices.
template <class Format>
void values_of_codes(const uint8_t* at, int64_t lane, float step, float* values) {
  for (int64_t k = 0; k < block; ++k)
    values[k] = step * static_cast<float>(Format::values[nibble(at + Format::codes, lane, k)]);
}

}  // namespace

template <>
void pack_block<Q4_0>(const std::byte* in, uint8_t* unit, int64_t lane) {
  put_f16(unit, lane, in);
  put_words(unit + Q4_0::codes, lane, in + 2, 4);
}
template <>
void unpack_block<Q4_0>(const uint8_t* unit, int64_t lane, float* values) {
  const float d = get_f16(unit, lane);
  for (int64_t k = 0; k < block; ++k) values[k] = static_cast<float>(nibble(unit + Q4_0::codes, lane, k) - 8) * d;
}

template <>
void pack_block<Q4_1>(const std::byte* in, uint8_t* unit, int64_t lane) {
  put_f16(unit, lane, in);
  put_f16(unit + f16_scales, lane, in + 2);
  put_words(unit + Q4_1::codes, lane, in + 4, 4);
}
template <>
void unpack_block<Q4_1>(const uint8_t* unit, int64_t lane, float* values) {
  const float d = get_f16(unit, lane), m = get_f16(unit + f16_scales, lane);
  for (int64_t k = 0; k < block; ++k) values[k] = static_cast<float>(nibble(unit + Q4_1::codes, lane, k)) * d + m;
}

template <>
void pack_block<Q5_0>(const std::byte* in, uint8_t* unit, int64_t lane) {
  put_f16(unit, lane, in);
  put_bits(unit + Q5_0::codes, lane, word_at(in + 2));
  put_words(unit + Q5_0::codes + bits_plane, lane, in + 6, 4);
}
template <>
void unpack_block<Q5_0>(const uint8_t* unit, int64_t lane, float* values) {
  const float d = get_f16(unit, lane);
  for (int64_t k = 0; k < block; ++k) values[k] = static_cast<float>(five_bits(unit + Q5_0::codes, lane, k) - 16) * d;
}

template <>
void pack_block<Q5_1>(const std::byte* in, uint8_t* unit, int64_t lane) {
  put_f16(unit, lane, in);
  put_f16(unit + f16_scales, lane, in + 2);
  put_bits(unit + Q5_1::codes, lane, word_at(in + 4));
  put_words(unit + Q5_1::codes + bits_plane, lane, in + 8, 4);
}
template <>
void unpack_block<Q5_1>(const uint8_t* unit, int64_t lane, float* values) {
  const float d = get_f16(unit, lane), m = get_f16(unit + f16_scales, lane);
  for (int64_t k = 0; k < block; ++k) values[k] = static_cast<float>(five_bits(unit + Q5_1::codes, lane, k)) * d + m;
}

template <>
void pack_block<Q8_0>(const std::byte* in, uint8_t* unit, int64_t lane) {
  put_f16(unit, lane, in);
  put_words(unit + Q8_0::codes, lane, in + 2, 8);
}
template <>
void unpack_block<Q8_0>(const uint8_t* unit, int64_t lane, float* values) {
  const float d = get_f16(unit, lane);
  for (int64_t k = 0; k < block; ++k) {
    const uint32_t byte = get_word(unit + Q8_0::codes, k / 4, lane) >> (k % 4 * 8);
    values[k] = static_cast<float>(static_cast<int8_t>(byte)) * d;
  }
}

template <>
void pack_block<Q4_K>(const std::byte* in, uint8_t* unit, int64_t lane) {
  put_f16(unit, lane, in);
  put_f16(unit + f16_scales, lane, in + 2);
  put_k_scales(unit, Q4_K::block_bytes, lane, in + 4);
  for (int64_t j = 0; j < 8; ++j) {
    uint8_t* codes = unit + Q4_K::header + j * Q4_K::block_bytes + Q4_K::codes;
    put_nibbles(codes, lane, in + 16 + j / 2 * 32, j % 2 == 1);
  }
}
template <>
void unpack_block<Q4_K>(const uint8_t* unit, int64_t lane, float* values) {
  const float d = get_f16(unit, lane), dmin = get_f16(unit + f16_scales, lane);
  for (int64_t j = 0; j < 8; ++j) {
    const uint8_t* at = unit + Q4_K::header + j * Q4_K::block_bytes;
    values_with_minimum(
        d * static_cast<float>(at[lane]), dmin * static_cast<float>(at[byte_scales + lane]),
        [&](int64_t k) { return nibble(at + Q4_K::codes, lane, k); }, values + j * block);
  }
}

template <>
void pack_block<Q5_K>(const std::byte* in, uint8_t* unit, int64_t lane) {
  put_f16(unit, lane, in);
  put_f16(unit + f16_scales, lane, in + 2);
  put_k_scales(unit, Q5_K::block_bytes, lane, in + 4);
  for (int64_t j = 0; j < 8; ++j) {
    uint8_t* codes = unit + Q5_K::header + j * Q5_K::block_bytes + Q5_K::codes;
    put_bit_of_bytes(codes, lane, in + 16, static_cast<int>(j));
    put_nibbles(codes + bits_plane, lane, in + 48 + j / 2 * 32, j % 2 == 1);
  }
}
template <>
void unpack_block<Q5_K>(const uint8_t* unit, int64_t lane, float* values) {
  const float d = get_f16(unit, lane), dmin = get_f16(unit + f16_scales, lane);
  for (int64_t j = 0; j < 8; ++j) {
    const uint8_t* at = unit + Q5_K::header + j * Q5_K::block_bytes;
    values_with_minimum(
        d * static_cast<float>(at[lane]), dmin * static_cast<float>(at[byte_scales + lane]),
        [&](int64_t k) { return five_bits(at + Q5_K::codes, lane, k); }, values + j * block);
  }
}

// Two halves of 128: 64 bytes of low nibbles, then high ones, for four blocks of 32; 32 bytes with two bits for each.
template <>
void pack_block<Q6_K>(const std::byte* in, uint8_t* unit, int64_t lane) {
  put_f16(unit, lane, in + factors_at<Q6_K>());
  for (int64_t j = 0; j < 8; ++j) {
    uint8_t* at = unit + Q6_K::header + j * Q6_K::block_bytes;
    const int64_t half = j / 4, quarter = j % 4;
    for (int64_t s = 0; s < 2; ++s) at[s * byte_scales + lane] = static_cast<uint8_t>(in[192 + 2 * j + s]);
    put_two_bits(at + Q6_K::codes, lane, in + 128 + 32 * half, static_cast<int>(2 * quarter));
    put_nibbles(at + Q6_K::codes + two_bits_plane, lane, in + 64 * half + 32 * (quarter % 2), quarter >= 2);
  }
}
template <>
void unpack_block<Q6_K>(const uint8_t* unit, int64_t lane, float* values) {
  values_of_halves<Q6_K>(
      unit, lane,
      [&](const uint8_t* codes, int64_t k) {
        return (nibble(codes + two_bits_plane, lane, k) | two_bits(codes, lane, k) << 4) - 32;
      },
      values);
}

// Two halves of 128: 32 bytes with two bits for each of four blocks of 32.
template <>
void pack_block<Q2_K>(const std::byte* in, uint8_t* unit, int64_t lane) {
  put_f16(unit, lane, in + factors_at<Q2_K>());
  put_f16(unit + f16_scales, lane, in + factors_at<Q2_K>() + 2);
  for (int64_t j = 0; j < 8; ++j) {
    uint8_t* at = unit + Q2_K::header + j * Q2_K::block_bytes;
    for (int64_t s = 0; s < 2; ++s) at[s * byte_scales + lane] = static_cast<uint8_t>(in[2 * j + s]);
    put_two_bits(at + Q2_K::codes, lane, in + 16 + 32 * (j / 4), static_cast<int>(2 * (j % 4)));
  }
}
template <>
void unpack_block<Q2_K>(const uint8_t* unit, int64_t lane, float* values) {
  const float d = get_f16(unit, lane), dmin = get_f16(unit + f16_scales, lane);
  for (int64_t j = 0; j < 8; ++j) {
    const uint8_t* at = unit + Q2_K::header + j * Q2_K::block_bytes;
    for (int64_t k = 0; k < block; ++k) {
      const int both = at[k / 16 * byte_scales + lane], code = two_bits(at + Q2_K::codes, lane, k);
      values[j * block + k] =
          d * static_cast<float>(both & 15) * static_cast<float>(code) - dmin * static_cast<float>(both >> 4);
    }
  }
}

template <>
void pack_block<Q3_K>(const std::byte* in, uint8_t* unit, int64_t lane) {
  put_f16(unit, lane, in + factors_at<Q3_K>());
  for (int64_t j = 0; j < 8; ++j) {
    uint8_t* at = unit + Q3_K::header + j * Q3_K::block_bytes;
    for (int64_t s = 0; s < 2; ++s) at[s * byte_scales + lane] = static_cast<uint8_t>(q3_k_scale(in, 2 * j + s));
    put_bit_of_bytes(at + Q3_K::codes, lane, in, static_cast<int>(j));
    put_two_bits(at + Q3_K::codes + bits_plane, lane, in + 32 + 32 * (j / 4), static_cast<int>(2 * (j % 4)));
  }
}
template <>
void unpack_block<Q3_K>(const uint8_t* unit, int64_t lane, float* values) {
  values_of_halves<Q3_K>(
      unit, lane, [&](const uint8_t* codes, int64_t k) { return three_bits(codes, lane, k) - 4; }, values);
}

template <>
void pack_block<IQ4_NL>(const std::byte* in, uint8_t* unit, int64_t lane) {
  put_f16(unit, lane, in);
  put_words(unit + IQ4_NL::codes, lane, in + 2, 4);
}
template <>
void unpack_block<IQ4_NL>(const uint8_t* unit, int64_t lane, float* values) {
  values_of_codes<IQ4_NL>(unit, lane, get_f16(unit, lane), values);
}

template <>
void pack_block<IQ4_XS>(const std::byte* in, uint8_t* unit, int64_t lane) {
  put_f16(unit, lane, in);
  for (int64_t j = 0; j < 8; ++j) {
    uint8_t* at = unit + IQ4_XS::header + j * IQ4_XS::block_bytes;
    at[lane] = static_cast<uint8_t>(iq4_xs_scale(in, j));
    put_words(at + IQ4_XS::codes, lane, in + 8 + 16 * j, 4);
  }
}
template <>
void unpack_block<IQ4_XS>(const uint8_t* unit, int64_t lane, float* values) {
  for (int64_t j = 0; j < 8; ++j) {
    const uint8_t* at = unit + IQ4_XS::header + j * IQ4_XS::block_bytes;
    const float step = get_f16(unit, lane) * static_cast<float>(static_cast<int8_t>(at[lane]));
    values_of_codes<IQ4_XS>(at, lane, step, values + j * block);
  }
}

template <>
void pack_block<MXFP4>(const std::byte* in, uint8_t* unit, int64_t lane) {
  unit[lane] = static_cast<uint8_t>(in[0]);
  put_words(unit + MXFP4::codes, lane, in + 1, 4);
}
template <>
void unpack_block<MXFP4>(const uint8_t* unit, int64_t lane, float* values) {
  values_of_codes<MXFP4>(unit, lane, std::ldexp(1.0f, unit[lane] - 128), values);
}

}  // namespace lathe::kernels::ggml
