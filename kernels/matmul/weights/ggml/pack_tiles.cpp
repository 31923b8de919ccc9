#include "kernels/matmul/weights/ggml/pack_tiles.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "core/dtype.h"
#include "core/thread_pool.h"
#include "kernels/matmul/weights/ggml/file_blocks.h"
#include "kernels/matmul/weights/ggml/pack_grid_tile.h"
#include "kernels/matmul/weights/ggml/tiles.h"

namespace lathe::kernels::ggml {
namespace {

constexpr uint8_t sign = 0x80;  // turns a signed byte into one with 128 added

// Codes of `count` bytes: the low halves, and the high ones from `high` on.
void split_halves(const std::byte* in, int64_t count, uint8_t* low, uint8_t* high) {
  for (int64_t j = 0; j < count; ++j) {
    low[j] = static_cast<uint8_t>(in[j]) & 15u;
    high[j] = static_cast<uint8_t>(in[j]) >> 4;
  }
}
// `mask` of each of 32 bytes, from bit `shift` on, becomes bits 4 … of as many codes.
void add_high_bits(const std::byte* in, int shift, unsigned mask, uint8_t* codes) {
  for (int64_t j = 0; j < block; ++j)
    codes[j] = static_cast<uint8_t>(codes[j] | (static_cast<unsigned>(in[j]) >> shift & mask) << 4);
}

// Of Q2_K and Q3_K: two bits of 256 codes.
void read_two_bits(const std::byte* in, uint8_t* codes) {
  for (int64_t g = 0; g < 8; ++g)
    for (int64_t j = 0; j < block; ++j)
      codes[32 * g + j] = static_cast<unsigned>(in[32 * (g / 4) + j]) >> (2 * (g % 4)) & 3u;
}

// The codes of a block of the file, none negative.
template <class Format>
void read_codes(const std::byte* in, uint8_t* codes) {
  if constexpr (Tiles<Format>::bits == 8) {
    for (int64_t j = 0; j < block; ++j) codes[j] = static_cast<uint8_t>(in[2 + j]) ^ sign;
  } else if constexpr (!Tiles<Format>::is_k) {
    split_halves(in + Format::file_bytes - 16, 16, codes, codes + 16);
    if constexpr (Tiles<Format>::bits == 5) {
      uint32_t fifths;
      std::memcpy(&fifths, in + Format::file_bytes - 20, 4);
      for (int64_t j = 0; j < block; ++j) codes[j] = static_cast<uint8_t>(codes[j] | (fifths >> j & 1u) << 4);
    }
  } else if constexpr (HasValues<Format>) {
    for (int64_t g = 0; g < 8; ++g) split_halves(in + 8 + 16 * g, 16, codes + 32 * g, codes + 32 * g + 16);
  } else if constexpr (Tiles<Format>::file_bits == 2) {
    read_two_bits(in + 16, codes);
  } else if constexpr (Tiles<Format>::file_bits == 3) {
    read_two_bits(in + 32, codes);
    for (int64_t e = 0; e < Format::elements; ++e)
      codes[e] = static_cast<uint8_t>(codes[e] | (static_cast<unsigned>(in[e % 32]) >> (e / 32) & 1u) << 2);
  } else if constexpr (Tiles<Format>::bits < 6) {
    const std::byte* halves = in + Format::file_bytes - 128;
    for (int64_t g = 0; g < 4; ++g) split_halves(halves + 32 * g, 32, codes + 64 * g, codes + 64 * g + 32);
    if constexpr (Tiles<Format>::bits == 5)
      for (int g = 0; g < 8; ++g) add_high_bits(in + 16, g, 1, codes + 32 * g);
  } else {
    for (int64_t h = 0; h < 2; ++h) {
      split_halves(in + 64 * h, 64, codes + 128 * h, codes + 128 * h + 64);
      for (int g = 0; g < 4; ++g) add_high_bits(in + 128 + 32 * h, 2 * g, 3, codes + 128 * h + 32 * g);
    }
  }
}

uint32_t word_of(const uint8_t* codes) {
  return codes[0] | uint32_t{codes[1]} << 8 | uint32_t{codes[8]} << 16 | uint32_t{codes[9]} << 24;
}
void or_word(uint8_t* to, uint32_t value) {
  uint32_t word;
  std::memcpy(&word, to, 4);
  word |= value;
  std::memcpy(to, &word, 4);
}

// 32 codes of a row: half h of a stage, its words 2h and 2h + 1.
template <class Format>
void put_codes(uint8_t* stage, int64_t row, int h, const uint8_t* codes) {
  using Place = Tiles<Format>;
  for (int q = 0; q < 4; ++q) {
    const uint32_t first = word_of(codes + 2 * q), second = word_of(codes + 16 + 2 * q);
    const auto high_bits = [&](uint32_t mask, int shift) {
      return (first >> 4 & mask) | (second >> 4 & mask) << shift;
    };
    uint8_t *low = stage + row * Place::low_bytes, *high = stage + Place::high_at + row * Place::high_bytes;
    if constexpr (Place::bits == 8) {
      or_word(low + 16 * q + 8 * h, first);
      or_word(low + 16 * q + 8 * h + 4, second);
    } else {
      or_word(low + 8 * q + 4 * h, (first & 0x0f0f0f0fu) | (second & 0x0f0f0f0fu) << 4);
    }
    if constexpr (Place::bits == 5) or_word(high + 4 * (q / 2), high_bits(0x01010101u, 1) << (4 * (q % 2) + 2 * h));
    if constexpr (Place::bits == 6) or_word(high + 4 * q, high_bits(0x03030303u, 2) << 4 * h);
  }
}

// The scales of the same, from block `in` of the file, whose j-th 32 neighbours they are.
template <class Format>
void put_scales(uint8_t* stage, int64_t row, int h, const std::byte* in, int64_t j) {
  using Place = Tiles<Format>;
  uint8_t* to = stage + Place::scales_at + row * Place::scale_bytes + h * Place::scale_bytes / 2;
  if constexpr (std::is_same_v<Format, MXFP4>) {
    const bf16 scale(std::ldexp(1.0f, static_cast<int>(in[0]) - 128));
    std::memcpy(to, &scale.bits, 2);
  } else if constexpr (!Place::is_k) {
    std::memcpy(to, in, 2 * Place::factors);
  } else if constexpr (std::is_same_v<Format, IQ4_XS>) {
    to[0] = static_cast<uint8_t>(iq4_xs_scale(in, j)) ^ sign;
  } else if constexpr (std::is_same_v<Format, Q2_K>) {
    for (int64_t s = 0; s < 2; ++s) to[s] = static_cast<uint8_t>(in[2 * j + s]);
  } else if constexpr (std::is_same_v<Format, Q3_K>) {
    for (int64_t s = 0; s < 2; ++s) to[s] = static_cast<uint8_t>(q3_k_scale(in, 2 * j + s)) ^ sign;
  } else if constexpr (Format::scales == 2) {
    for (int64_t s = 0; s < 2; ++s) to[s] = static_cast<uint8_t>(in[192 + 2 * j + s]) ^ sign;
  } else {
    const KScale both = k_scale(in + 4, j);
    to[0] = both.scale, to[1] = both.minimum;
  }
}

template <class Format>
void pack_tile(const GgmlRows& rows, int64_t tile, uint8_t* to) {
  using Place = Tiles<Format>;
  const int64_t first = tile * Place::rows, count = std::min<int64_t>(Place::rows, std::ssize(rows.rows) - first);
  const int64_t blocks = rows.columns / Format::elements;
  uint8_t* const factors = to + (rows.columns + stage_neighbours - 1) / stage_neighbours * Place::stage_bytes;
  [[maybe_unused]] uint8_t codes[Format::elements];
  for (int64_t row = 0; row < count; ++row)
    for (int64_t b = 0; b < blocks; ++b) {
      const std::byte* in = rows.rows[static_cast<size_t>(first + row)] + b * Format::file_bytes;
      if constexpr (!HasGrid<Format>) read_codes<Format>(in, codes);
      for (int64_t j = 0; j < Format::elements / block; ++j) {
        const int64_t half = b * (Format::elements / block) + j;
        uint8_t* stage = to + half / 2 * Place::stage_bytes;
        if constexpr (HasGrid<Format>) {
          put_grid_half<Format>(stage, row, static_cast<int>(half % 2), in, j);
        } else {
          put_codes<Format>(stage, row, static_cast<int>(half % 2), codes + j * block);
          put_scales<Format>(stage, row, static_cast<int>(half % 2), in, j);
        }
      }
      uint8_t* const factor = factors + (b * Place::rows + row) * Place::factor_bytes;
      if constexpr (HasGrid<Format>) {
        const uint16_t bits = grid_factor<Format>(in);
        std::memcpy(factor, &bits, 2);
      } else if constexpr (Place::is_k) {
        std::memcpy(factor, in + factors_at<Format>(), Place::factor_bytes);
      }
    }
}

}  // namespace

int64_t tile_bytes(GgmlFormat format, int64_t columns) {
  return with_format(format, [&]<class Format>() {
    using Place = Tiles<Format>;
    return (columns + stage_neighbours - 1) / stage_neighbours * Place::stage_bytes +
           columns / Format::elements * Place::rows * Place::factor_bytes;
  });
}

void pack_tiles(const GgmlRows& rows, int64_t first, int64_t count, uint8_t* to) {
  const int64_t bytes = tile_bytes(rows.format, rows.columns);
  std::memset(to, 0, static_cast<size_t>(count * bytes));
  with_format(rows.format, [&]<class Format>() {
    parallel_for(count, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) pack_tile<Format>(rows, first + i, to + i * bytes);
    });
  });
}

}  // namespace lathe::kernels::ggml
