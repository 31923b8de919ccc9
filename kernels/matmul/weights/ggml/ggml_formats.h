// ggml's block formats (facts: the types' layouts in GGUF files) as products on the CPU stream them: the one list.
//
// A unit is one block of the file, 32 or 256 neighbours along k, of the 16 rows of a panel: their scales, then for each
// 32 neighbours their codes. Codes are kept in planes, words of 32 bits with the row index fastest, which repacking
// only moves:
//   bytes     8 bits: word t has neighbours 4t … 4t + 3, as in the file
//   nibbles   4 bits: word t has 4t … 4t + 3 in the low halves of its bytes and 16 + 4t … in the high ones, as in the
//             file
//   two_bits  2 bits of 4t … 4t + 3 in word t / 4, at bit 2 (t % 4) of its bytes
//   bits      1 bit of 4t … 4t + 3, at bit t of its bytes
// or, of formats whose codes are indices of a grid (grids.h), in other planes:
//   indices   of every 4 or 8 neighbours a byte, row after row; what an index has beyond 8 bits lies elsewhere
//   signs     bits as above; of formats that store no sign for neighbour 8g + 7, which makes the number of negative
//             ones even, in its place bit g of what the format says
// Pair i = 2t + p, p < 2, is the neighbours 4t + p (the word's low half) and 4t + p + 2 (the high one): products
// multiply pairs of 16-bit integers, and a shift and a mask of a plane give the pairs of as many rows as a vector has.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "kernels/simd/inline.h"

namespace lathe::kernels {

enum class GgmlFormat : uint8_t {
  q4_0,
  q4_1,
  q5_0,
  q5_1,
  q8_0,
  q4_k,
  q5_k,
  q6_k,
  q2_k,
  q3_k,
  iq4_nl,
  iq4_xs,
  mxfp4,
  iq2_xxs,
  iq2_xs,
  iq2_s,
  iq3_xxs,
  iq3_s,
  iq1_s,
  iq1_m,
};

// The format of ggml's type of that name ("Q4_1"), where it is one of these.
std::optional<GgmlFormat> ggml_format(std::string_view ggml_type);
std::string_view name_of(GgmlFormat format);  // ggml's: "Q4_1"

namespace ggml {

inline constexpr int64_t panel_rows = 16;
// Neighbours along k whose products are summed as integers, and whose activations share a scale.
inline constexpr int64_t block = 32;

inline constexpr int64_t f16_scales = panel_rows * 2, byte_scales = panel_rows;
inline constexpr int64_t bits_plane = panel_rows * 4, two_bits_plane = 2 * bits_plane, nibbles_plane = 4 * bits_plane,
                         bytes_plane = 8 * bits_plane;

// Values of formats whose codes of 4 bits are indices: of IQ4, and the numbers of MXFP4 (floats of 4 bits), twice.
inline constexpr int8_t iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
inline constexpr int8_t fp4_values_doubled[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

// What the codes of a format are made of, and where. Offsets of scales count from the unit for formats of 32 and from
// the block for K formats, whose f16 factors d (and dmin) stand at the unit's beginning.
struct Q4_0 {  // (q − 8)·d
  static constexpr int64_t elements = block, file_bytes = 18, header = 0;
  static constexpr int64_t codes = f16_scales, block_bytes = codes + nibbles_plane;
  static constexpr bool has_minimum = false;
  static constexpr int64_t scales = 1;
};
struct Q4_1 {  // q·d + m
  static constexpr int64_t elements = block, file_bytes = 20, header = 0;
  static constexpr int64_t codes = 2 * f16_scales, block_bytes = codes + nibbles_plane;
  static constexpr bool has_minimum = true;
  static constexpr int64_t scales = 1;
};
struct Q5_0 {  // (q − 16)·d; bits, then nibbles
  static constexpr int64_t elements = block, file_bytes = 22, header = 0;
  static constexpr int64_t codes = f16_scales, block_bytes = codes + bits_plane + nibbles_plane;
  static constexpr bool has_minimum = false;
  static constexpr int64_t scales = 1;
};
struct Q5_1 {  // q·d + m; bits, then nibbles
  static constexpr int64_t elements = block, file_bytes = 24, header = 0;
  static constexpr int64_t codes = 2 * f16_scales, block_bytes = codes + bits_plane + nibbles_plane;
  static constexpr bool has_minimum = true;
  static constexpr int64_t scales = 1;
};
struct Q8_0 {  // q·d
  static constexpr int64_t elements = block, file_bytes = 34, header = 0;
  static constexpr int64_t codes = f16_scales, block_bytes = codes + bytes_plane;
  static constexpr bool has_minimum = false;
  static constexpr int64_t scales = 1;
};
struct Q4_K {  // q·(d·sc) − dmin·mn
  static constexpr int64_t elements = 256, file_bytes = 144, header = 2 * f16_scales;
  static constexpr int64_t codes = 2 * byte_scales, block_bytes = codes + nibbles_plane;
  static constexpr bool has_minimum = true;
  static constexpr int64_t scales = 1;
};
struct Q5_K {  // q·(d·sc) − dmin·mn; bits, then nibbles
  static constexpr int64_t elements = 256, file_bytes = 176, header = 2 * f16_scales;
  static constexpr int64_t codes = 2 * byte_scales, block_bytes = codes + bits_plane + nibbles_plane;
  static constexpr bool has_minimum = true;
  static constexpr int64_t scales = 1;
};
struct Q6_K {  // (q − 32)·(d·sc), a scale for each 16; two_bits, then nibbles
  static constexpr int64_t elements = 256, file_bytes = 210, header = f16_scales;
  static constexpr int64_t codes = 2 * byte_scales, block_bytes = codes + two_bits_plane + nibbles_plane;
  static constexpr bool has_minimum = false;
  static constexpr int64_t scales = 2;
};
struct Q2_K {  // q·(d·sc) − dmin·mn, both for each 16, as the nibbles of a byte; two_bits
  static constexpr int64_t elements = 256, file_bytes = 84, header = 2 * f16_scales;
  static constexpr int64_t codes = 2 * byte_scales, block_bytes = codes + two_bits_plane;
  static constexpr bool has_minimum = true;
  static constexpr int64_t scales = 2;
};
struct Q3_K {  // (q − 4)·(d·sc), a scale for each 16; bits, the third ones, then two_bits
  static constexpr int64_t elements = 256, file_bytes = 110, header = f16_scales;
  static constexpr int64_t codes = 2 * byte_scales, block_bytes = codes + bits_plane + two_bits_plane;
  static constexpr bool has_minimum = false;
  static constexpr int64_t scales = 2;
};
struct IQ4_NL {  // values[q]·d
  static constexpr int64_t elements = block, file_bytes = 18, header = 0;
  static constexpr int64_t codes = f16_scales, block_bytes = codes + nibbles_plane;
  static constexpr bool has_minimum = false;
  static constexpr int64_t scales = 1;
  static constexpr const int8_t (&values)[16] = iq4_values;
};
struct IQ4_XS {  // values[q]·(d·sc)
  static constexpr int64_t elements = 256, file_bytes = 136, header = f16_scales;
  static constexpr int64_t codes = byte_scales, block_bytes = codes + nibbles_plane;
  static constexpr bool has_minimum = false;
  static constexpr int64_t scales = 1;
  static constexpr const int8_t (&values)[16] = iq4_values;
};
struct MXFP4 {  // values[q]·2^(e − 128)
  static constexpr int64_t elements = block, file_bytes = 17, header = 0;
  static constexpr int64_t codes = byte_scales, block_bytes = codes + nibbles_plane;
  static constexpr bool has_minimum = false;
  static constexpr int64_t scales = 1;
  static constexpr const int8_t (&values)[16] = fp4_values_doubled;
};

// Indices of a grid of magnitudes and signs: a code is grid_offset ± magnitude, and a value (code − grid_offset)·step,
// where a step is d · `unit` · (2·sc + 1). `indices`, `signs` and others count from the block.
struct IQ2_XXS {  // scales of 32 instead of the signs of neighbours 8g + 7
  static constexpr int64_t elements = 256, file_bytes = 66, header = f16_scales;
  static constexpr int64_t indices = 0, signs = 4 * panel_rows, block_bytes = signs + bits_plane;
  static constexpr bool has_minimum = false;
  static constexpr int64_t scales = 1;
  static constexpr int grid_entries = 256, grid_neighbours = 8, grid_offset = 64;
  static constexpr float unit = 0.125f;
};
struct IQ2_XS {  // a byte of four indices' ninth bits and the last 16's scale; the first 16's instead of the signs of
                 // neighbours 8g + 7
  static constexpr int64_t elements = 256, file_bytes = 74, header = f16_scales;
  static constexpr int64_t high = 0, indices = panel_rows, signs = indices + 4 * panel_rows,
                           block_bytes = signs + bits_plane;
  static constexpr bool has_minimum = false;
  static constexpr int64_t scales = 2;
  static constexpr int grid_entries = 512, grid_neighbours = 8, grid_offset = 64;
  static constexpr float unit = 0.125f;
};
struct IQ2_S {  // scales of 16, as nibbles of a byte; then a byte of four indices' ninth and tenth bits
  static constexpr int64_t elements = 256, file_bytes = 82, header = f16_scales;
  static constexpr int64_t high = byte_scales, indices = high + panel_rows, signs = indices + 4 * panel_rows,
                           block_bytes = signs + bits_plane;
  static constexpr bool has_minimum = false;
  static constexpr int64_t scales = 2;
  static constexpr int grid_entries = 1024, grid_neighbours = 8, grid_offset = 64;
  static constexpr float unit = 0.125f;
};
struct IQ3_XXS {  // scales of 32 instead of the signs of neighbours 8g + 7
  static constexpr int64_t elements = 256, file_bytes = 98, header = f16_scales;
  static constexpr int64_t indices = 0, signs = 8 * panel_rows, block_bytes = signs + bits_plane;
  static constexpr bool has_minimum = false;
  static constexpr int64_t scales = 1;
  static constexpr int grid_entries = 256, grid_neighbours = 4, grid_offset = 64;
  static constexpr float unit = 0.25f;
};
struct IQ3_S {  // scales of two blocks of 32 as nibbles of a byte, in the header; a byte of eight indices' ninth bits
  static constexpr int64_t elements = 256, file_bytes = 110, header = f16_scales + 4 * byte_scales;
  static constexpr int64_t high = 0, indices = panel_rows, signs = indices + 8 * panel_rows,
                           block_bytes = signs + bits_plane;
  static constexpr bool has_minimum = false;
  static constexpr int64_t scales = 1;
  static constexpr int grid_entries = 512, grid_neighbours = 4, grid_offset = 16;
  static constexpr float unit = 1.0f;
};
// Indices of a grid of eighths, −8, 0 and 8, to each eight of which 1 is added, or subtracted where a bit says so.
struct IQ1_S {  // two bytes as in the file: ninth to eleventh bits of four indices, a scale of 3 bits, one for all four
  static constexpr int64_t elements = 256, file_bytes = 50, header = f16_scales;
  static constexpr int64_t high = 0, indices = 2 * panel_rows, block_bytes = indices + 4 * panel_rows;
  static constexpr bool has_minimum = false;
  static constexpr int64_t scales = 1;
  static constexpr int grid_entries = 2048, grid_neighbours = 8, grid_offset = 16;
  static constexpr float unit = 0.125f;
};
struct
    IQ1_M {  // two bytes as in the file: of each index three bits and its own; scales of 16, 3 bits each, in the header
  static constexpr int64_t elements = 256, file_bytes = 56, header = f16_scales + 4 * 2 * panel_rows;
  static constexpr int64_t high = 0, indices = 2 * panel_rows, block_bytes = indices + 4 * panel_rows;
  static constexpr bool has_minimum = false;
  static constexpr int64_t scales = 2;
  static constexpr int grid_entries = 2048, grid_neighbours = 8, grid_offset = 16;
  static constexpr float unit = 0.125f;
};

// Codes are indices of Format::values, whole numbers with a sign.
template <class Format>
concept HasValues = requires {
  Format::values;
};
template <class Format>
concept HasGrid = requires {
  Format::grid_entries;
};
// Its signs are those of IQ1's deltas, one for eight neighbours or more.
template <class Format>
concept HasDeltas = HasGrid<Format> && !requires {
  Format::signs;
};

// A scale for 16 neighbours, whose codes less their offset reach beyond 2^5.
template <class Format>
inline constexpr bool has_wide_halves = false;
template <HasGrid Format>
inline constexpr bool has_wide_halves<Format> = Format::scales == 2 && Format::grid_offset > 32;

template <class Format>
LATHE_INLINE constexpr int64_t unit_bytes() {
  return Format::header + Format::elements / block * Format::block_bytes;
}
// Unit and block that hold block `b` of a panel's rows.
template <class Format>
LATHE_INLINE const uint8_t* unit_of(const uint8_t* panel, int64_t b) {
  return panel + b / (Format::elements / block) * unit_bytes<Format>();
}
template <class Format>
LATHE_INLINE const uint8_t* block_of(const uint8_t* panel, int64_t b) {
  return unit_of<Format>(panel, b) + Format::header + b % (Format::elements / block) * Format::block_bytes;
}

// body.operator()<Format>() with the struct of a format.
template <class Body>
LATHE_INLINE decltype(auto) with_format(GgmlFormat format, const Body& body) {
  switch (format) {
    case GgmlFormat::q4_0: return body.template operator()<Q4_0>();
    case GgmlFormat::q4_1: return body.template operator()<Q4_1>();
    case GgmlFormat::q5_0: return body.template operator()<Q5_0>();
    case GgmlFormat::q5_1: return body.template operator()<Q5_1>();
    case GgmlFormat::q8_0: return body.template operator()<Q8_0>();
    case GgmlFormat::q4_k: return body.template operator()<Q4_K>();
    case GgmlFormat::q5_k: return body.template operator()<Q5_K>();
    case GgmlFormat::q6_k: return body.template operator()<Q6_K>();
    case GgmlFormat::q2_k: return body.template operator()<Q2_K>();
    case GgmlFormat::q3_k: return body.template operator()<Q3_K>();
    case GgmlFormat::iq4_nl: return body.template operator()<IQ4_NL>();
    case GgmlFormat::iq4_xs: return body.template operator()<IQ4_XS>();
    case GgmlFormat::mxfp4: return body.template operator()<MXFP4>();
    case GgmlFormat::iq2_xxs: return body.template operator()<IQ2_XXS>();
    case GgmlFormat::iq2_xs: return body.template operator()<IQ2_XS>();
    case GgmlFormat::iq2_s: return body.template operator()<IQ2_S>();
    case GgmlFormat::iq3_xxs: return body.template operator()<IQ3_XXS>();
    case GgmlFormat::iq3_s: return body.template operator()<IQ3_S>();
    case GgmlFormat::iq1_s: return body.template operator()<IQ1_S>();
    case GgmlFormat::iq1_m: return body.template operator()<IQ1_M>();
  }
  __builtin_unreachable();
}

}  // namespace ggml
}  // namespace lathe::kernels
