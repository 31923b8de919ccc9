// ggml's blocks as kernels on devices read them: where a row's codes and scales lie.
//
// A tile is 32 rows of the weight, a block's columns in a product of few rows, over all of k: its stages one after
// another, then, of K formats, the f16 factors of every 256 neighbours of every row. A stage is 64 neighbours along k
// and lies in one piece, so that threads copy it in 16-byte accesses side by side, whatever the format: a block of the
// file has 18 to 210 bytes and begins at a multiple of 2. Where there are no more neighbours or rows, scales are 0.
//
// Of a row in a stage, four threads (quarter q < 4) have the neighbours that a lane has of the right operand of
// mma.m16n8k16: 16i + 2q, 16i + 2q + 1, 16i + 2q + 8 and 16i + 2q + 9, in this order the bytes of word i < 4. A stage
// has planes, of each row after row:
//   low      of 2 to 6 bits: in the word at 8q + 4j, in the low halves of its bytes word 2j, in the high 2j + 1
//            of 8 bits: at 16q + 4i word i
//   high     the fifth bit: in the word at 4 (q / 2), word i's at bit 4 (q % 2) + i of its bytes
//            bits 5 and 6: in the word at 4q, word i's at bits 2i and 2i + 1 of its bytes
//   scales   of 32 neighbours each: f16 d (and m), MXFP4 bf16 2^(e - 128); of 256: bytes sc and mn, two scales where
//            16 neighbours have one, IQ4_XS one
// so that a thread's bytes of a plane lie at a multiple of its number and no two lanes meet in a bank. Q8_0's codes and
// scales with a sign have 128 added: no byte is negative.
//
// Of formats with grids all four threads of a row read the same bytes of 32 neighbours, h < 2 of a stage. Planes:
//   indices  low eight bits, in the file's order
//   signs    byte g of a word at 4h: of neighbours 8g …, as in the file; where that has none for neighbour 8g + 7, bit
//            g of a scale (IQ2_XXS, IQ3_XXS) or the index's ninth bit (IQ2_XS). Of IQ1 two bytes at 2h, as in the file:
//            what indices and deltas have there, and IQ1_S's scale
//   high     IQ2_S, IQ3_S: more bits of indices, a byte at h
//   scales   IQ2_XS, IQ2_S: two nibbles at h; IQ3_S: nibble h; IQ1_M: two bytes with four scales
//
// These are the file's bytes, but that 6-bit numbers become bytes, half a byte for each 32, and codes of 2 and 3 bits
// take 4: Q2_K and Q3_K, 4.6 and 4.6 bits a weight where the file has 2.6 and 3.4, save memory beside 16 bits, not
// beside Q4_K.
#pragma once

#include <cstdint>
#include <type_traits>

#include "kernels/matmul/weights/ggml/ggml_formats.h"

namespace lathe::kernels::ggml {

inline constexpr int64_t stage_neighbours = 64;
inline constexpr int64_t tile_rows_on_devices = 32;

template <class Format>
struct Tiles {
  static constexpr int rows = tile_rows_on_devices;
  static constexpr bool is_k = Format::elements > block, has_minimum = Format::has_minimum;
  // Of a code in the file and here; an index of 4 bits stands for a byte.
  static constexpr int file_bits = (Format::block_bytes - Format::codes) * 8 / (panel_rows * block);
  static constexpr int bits = file_bits < 4 ? 4 : file_bits;
  static constexpr int decoded_bits = HasValues<Format> ? 8 : bits;
  // The decoded code that stands for 0.
  static constexpr int zero = HasValues<Format> ? 128 : has_minimum ? 0 : 1 << (file_bits - 1);
  static constexpr int factors = has_minimum ? 2 : 1;  // f16, of a block of the file

  // Of a row in a stage.
  static constexpr int low_bytes = bits == 8 ? 64 : 32, high_bytes = bits == 8 ? 0 : 8 * (bits - 4);
  static constexpr int scale_bytes = !is_k ? 4 * factors : has_minimum ? 4 : 2 * static_cast<int>(Format::scales);
  // Within a stage.
  static constexpr int high_at = rows * low_bytes, scales_at = high_at + rows * high_bytes;
  static constexpr int stage_bytes = scales_at + rows * scale_bytes;
  // K formats: of a row, of a block, which is so many stages.
  static constexpr int factor_bytes = is_k ? 2 * factors : 0;
  static constexpr int block_stages = is_k ? Format::elements / stage_neighbours : 1;
};

template <HasGrid Format>
struct Tiles<Format> {
  static constexpr int rows = tile_rows_on_devices;
  static constexpr bool is_k = true, has_minimum = false;
  static constexpr int decoded_bits = 7, zero = Format::grid_offset;
  // Of a row in a stage.
  static constexpr int index_bytes = stage_neighbours / Format::grid_neighbours;
  static constexpr int sign_bytes = HasDeltas<Format> ? 4 : 8;
  static constexpr int high_bytes = std::is_same_v<Format, IQ2_S> || std::is_same_v<Format, IQ3_S> ? 2 : 0;
  static constexpr int scale_bytes = Format::scales == 2 ? 2 : std::is_same_v<Format, IQ3_S> ? 1 : 0;
  // Within a stage.
  static constexpr int signs_at = rows * index_bytes, high_at = signs_at + rows * sign_bytes,
                       scales_at = high_at + rows * high_bytes;
  static constexpr int stage_bytes = scales_at + rows * scale_bytes;
  static constexpr int factor_bytes = 2, block_stages = Format::elements / stage_neighbours;
};

// Format::values 4i … 4i + 3 with 128 added, as bytes. A variable, which device code may read where it may not call.
template <class Format, int i>
inline constexpr uint32_t word_of_values = [] {
  uint32_t bytes = 0;
  for (int b = 0; b < 4; ++b) bytes |= static_cast<uint32_t>(Format::values[4 * i + b] + 128) << (8 * b);
  return bytes;
}();

// Of a tile of a weight with so many columns, in whole blocks.
int64_t tile_bytes(GgmlFormat format, int64_t columns);

}  // namespace lathe::kernels::ggml
