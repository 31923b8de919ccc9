// Formats whose codes are indices of a grid.
#include "kernels/matmul/weights/ggml/file_blocks.h"
#include "kernels/matmul/weights/ggml/grids.h"
#include "kernels/matmul/weights/ggml/plane_words.h"
#include "kernels/matmul/weights/ggml/repack.h"

namespace lathe::kernels::ggml {
namespace {

// In the word of a plane of signs, those of neighbours 8g + 7.
constexpr uint32_t last_signs = 0xaa000000u;
int last_sign(int64_t g) { return static_cast<int>(25 + 2 * g); }

template <class Format>
constexpr bool has_sevens =
    std::is_same_v<Format, IQ2_XXS> || std::is_same_v<Format, IQ2_XS> || std::is_same_v<Format, IQ3_XXS>;
template <class Format>
constexpr int64_t indices = block / Format::grid_neighbours;

template <class Format>
uint32_t sign_word(const GridBlock& found) {
  uint32_t word = spread_bits(found.signs);
  if constexpr (has_sevens<Format>) {
    word &= ~last_signs;
    for (int64_t g = 0; g < 4; ++g) word |= (found.scales[0] >> g & 1u) << last_sign(g);
  }
  return word;
}
uint32_t with_last_signs(uint32_t word) {
  word &= ~last_signs;
  const uint32_t all = word ^ word << 8 ^ word << 16 ^ word << 24;  // its highest byte is of the four bytes
  return word | ((all ^ all << 1) & last_signs);
}

// The bits of an index beyond eight.
template <class Format>
unsigned high_bits(const uint8_t* at, int64_t lane, int64_t i) {
  if constexpr (std::is_same_v<Format, IQ2_XS>) return at[Format::high + lane] >> i & 1u;
  if constexpr (std::is_same_v<Format, IQ2_S>) return at[Format::high + lane] >> (2 * i) & 3u;
  if constexpr (std::is_same_v<Format, IQ3_S>) return at[Format::high + lane] >> i & 1u;
  if constexpr (HasDeltas<Format>) {
    const unsigned both = at[Format::high + 2 * lane] | at[Format::high + 2 * lane + 1] << 8;
    return both >> ((Format::scales == 1 ? 3 : 4) * i) & 7u;
  }
  return 0;
}

// The sign, or delta's sign, of neighbour k.
template <class Format>
bool sign_of(const uint8_t* at, int64_t lane, int64_t k) {
  if constexpr (HasDeltas<Format>) {
    const unsigned both = at[Format::high + 2 * lane] | at[Format::high + 2 * lane + 1] << 8;
    return (both >> (Format::scales == 1 ? 15 : 4 * (k / 8) + 3) & 1u) != 0;
  } else {
    const uint32_t word = get_word(at + Format::signs, 0, lane);
    return ((has_sevens<Format> ? with_last_signs(word) : word) >> (k % 4 * 8 + k / 4) & 1u) != 0;
  }
}

// sc of half `half` of block j.
template <class Format>
int scale_of(const uint8_t* unit, const uint8_t* at, int64_t lane, int64_t j, int64_t half) {
  if constexpr (std::is_same_v<Format, IQ2_XS>)
    if (half == 1) return at[Format::high + lane] >> 4;
  if constexpr (std::is_same_v<Format, IQ2_S>) {
    return at[lane] >> (4 * half) & 15;
  } else if constexpr (std::is_same_v<Format, IQ3_S>) {
    return unit[f16_scales + j / 2 * byte_scales + lane] >> (4 * (j % 2)) & 15;
  } else if constexpr (std::is_same_v<Format, IQ1_S>) {
    return at[Format::high + 2 * lane + 1] >> 4 & 7;
  } else if constexpr (std::is_same_v<Format, IQ1_M>) {
    const uint8_t* scales = unit + f16_scales + j / 2 * 2 * panel_rows + 2 * lane;
    return (scales[0] | scales[1] << 8) >> (6 * (j % 2) + 3 * half) & 7;
  } else {
    const uint32_t word = get_word(at + Format::signs, 0, lane);
    int scale = 0;
    for (int64_t g = 0; g < 4; ++g) scale |= static_cast<int>(word >> last_sign(g) & 1u) << g;
    return scale;
  }
}

template <class Format>
void put_header(const std::byte* in, uint8_t* unit, int64_t lane) {
  const uint16_t factor = grid_factor<Format>(in);
  std::memcpy(unit + 2 * lane, &factor, 2);
  for (int64_t i = 0; i < 4; ++i) {
    if constexpr (std::is_same_v<Format, IQ3_S>)
      unit[f16_scales + i * byte_scales + lane] = static_cast<uint8_t>(in[106 + i]);
    if constexpr (std::is_same_v<Format, IQ1_M>)
      std::memcpy(unit + f16_scales + i * 2 * panel_rows + 2 * lane, in + 48 + 2 * i, 2);
  }
}

template <class Format>
void pack(const std::byte* in, uint8_t* unit, int64_t lane) {
  put_header<Format>(in, unit, lane);
  for (int64_t j = 0; j < Format::elements / block; ++j) {
    uint8_t* at = unit + Format::header + j * Format::block_bytes;
    const GridBlock found = grid_block<Format>(in, j);
    for (int64_t i = 0; i < indices<Format>; ++i)
      at[Format::indices + i * panel_rows + lane] = static_cast<uint8_t>(found.indices[i]);
    if constexpr (HasDeltas<Format>) {
      std::memcpy(at + Format::high + 2 * lane, in + (Format::scales == 1 ? 34 : 32) + 2 * j, 2);
    } else {
      put_word(at + Format::signs, 0, lane, sign_word<Format>(found));
      if constexpr (std::is_same_v<Format, IQ2_XS>) {
        unsigned high = 0;
        for (int64_t g = 0; g < 4; ++g) high |= (found.indices[g] >> 8 & 1u) << g;
        at[Format::high + lane] = static_cast<uint8_t>(high | static_cast<unsigned>(found.scales[1]) << 4);
      } else if constexpr (requires { Format::high; }) {
        at[Format::high + lane] = static_cast<uint8_t>(in[66 + j]);
      }
      if constexpr (std::is_same_v<Format, IQ2_S>)
        at[lane] = static_cast<uint8_t>(found.scales[0] | found.scales[1] << 4);
    }
  }
}

template <class Format>
void unpack(const uint8_t* unit, int64_t lane, float* values) {
  constexpr int64_t neighbours = Format::grid_neighbours;
  const float d = get_f16(unit, lane) * Format::unit;
  for (int64_t j = 0; j < Format::elements / block; ++j) {
    const uint8_t* at = unit + Format::header + j * Format::block_bytes;
    for (int64_t i = 0; i < indices<Format>; ++i) {
      const unsigned index = at[Format::indices + i * panel_rows + lane] | high_bits<Format>(at, lane, i) << 8;
      const auto entry = ExpandedGrid<Format>::words[index];
      for (int64_t k = i * neighbours; k < (i + 1) * neighbours; ++k) {
        const int byte = static_cast<int>(entry >> (8 * (k % neighbours)) & 0xff), value = (byte ^ 0x80) - 0x80;
        const bool sign = sign_of<Format>(at, lane, k);
        const int code = HasDeltas<Format> ? value + (sign ? -1 : 1) : sign ? -value : value;
        const float step = d * static_cast<float>(2 * scale_of<Format>(unit, at, lane, j, k / 16) + 1);
        values[j * block + k] = step * static_cast<float>(code);
      }
    }
  }
}

}  // namespace

template <>
void pack_block<IQ2_XXS>(const std::byte* in, uint8_t* unit, int64_t lane) {
  pack<IQ2_XXS>(in, unit, lane);
}
template <>
void unpack_block<IQ2_XXS>(const uint8_t* unit, int64_t lane, float* values) {
  unpack<IQ2_XXS>(unit, lane, values);
}
template <>
void pack_block<IQ2_XS>(const std::byte* in, uint8_t* unit, int64_t lane) {
  pack<IQ2_XS>(in, unit, lane);
}
template <>
void unpack_block<IQ2_XS>(const uint8_t* unit, int64_t lane, float* values) {
  unpack<IQ2_XS>(unit, lane, values);
}
template <>
void pack_block<IQ2_S>(const std::byte* in, uint8_t* unit, int64_t lane) {
  pack<IQ2_S>(in, unit, lane);
}
template <>
void unpack_block<IQ2_S>(const uint8_t* unit, int64_t lane, float* values) {
  unpack<IQ2_S>(unit, lane, values);
}
template <>
void pack_block<IQ3_XXS>(const std::byte* in, uint8_t* unit, int64_t lane) {
  pack<IQ3_XXS>(in, unit, lane);
}
template <>
void unpack_block<IQ3_XXS>(const uint8_t* unit, int64_t lane, float* values) {
  unpack<IQ3_XXS>(unit, lane, values);
}
template <>
void pack_block<IQ3_S>(const std::byte* in, uint8_t* unit, int64_t lane) {
  pack<IQ3_S>(in, unit, lane);
}
template <>
void unpack_block<IQ3_S>(const uint8_t* unit, int64_t lane, float* values) {
  unpack<IQ3_S>(unit, lane, values);
}
template <>
void pack_block<IQ1_S>(const std::byte* in, uint8_t* unit, int64_t lane) {
  pack<IQ1_S>(in, unit, lane);
}
template <>
void unpack_block<IQ1_S>(const uint8_t* unit, int64_t lane, float* values) {
  unpack<IQ1_S>(unit, lane, values);
}
template <>
void pack_block<IQ1_M>(const std::byte* in, uint8_t* unit, int64_t lane) {
  pack<IQ1_M>(in, unit, lane);
}
template <>
void unpack_block<IQ1_M>(const uint8_t* unit, int64_t lane, float* values) {
  unpack<IQ1_M>(unit, lane, values);
}

}  // namespace lathe::kernels::ggml
