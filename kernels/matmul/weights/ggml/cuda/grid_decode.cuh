// Formats with grids in device code (decode.cuh). A look-up gives two neighbours' codes, a nibble each, which with
// their signs choose bytes of a word or two.
//
// Where a kernel decodes much, a block copies the grid into shared memory: the lanes of a warp look up eight indices at
// a time, four lanes each, which lie anywhere. The constant cache would serve them one after another, and the
// first-level cache line by line; banks rarely meet. Elsewhere entries come from memory, by way of the caches.
#pragma once

#include "kernels/cuda/row.h"
#include "kernels/matmul/weights/ggml/grid_of.h"
#include "kernels/matmul/weights/ggml/tiles.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

static __device__ const auto iq2_xxs_entries = ggml::iq2_xxs_grid;
static __device__ const auto iq2_xs_entries = ggml::iq2_xs_grid;
static __device__ const auto iq2_s_entries = ggml::iq2_s_grid;
static __device__ const auto iq3_xxs_entries = ggml::iq3_xxs_grid;
static __device__ const auto iq3_s_entries = ggml::iq3_s_grid;
static __device__ const auto iq1_s_entries = ggml::iq1_s_grid;

template <class Format>
__device__ __forceinline__ uint32_t entry_of_grid(uint32_t index) {
  if constexpr (std::is_same_v<Format, ggml::IQ2_XXS>) return iq2_xxs_entries.codes[index];
  if constexpr (std::is_same_v<Format, ggml::IQ2_XS>) return iq2_xs_entries.codes[index];
  if constexpr (std::is_same_v<Format, ggml::IQ2_S>) return iq2_s_entries.codes[index];
  if constexpr (std::is_same_v<Format, ggml::IQ3_XXS>) return iq3_xxs_entries.codes[index];
  if constexpr (std::is_same_v<Format, ggml::IQ3_S>) return iq3_s_entries.codes[index];
  return iq1_s_entries.codes[index];
}

// pair(index, part): the codes of neighbours 2 part and 2 part + 1 of an entry, in nibbles.
template <class Format>
struct GridInMemory {
  __device__ __forceinline__ uint32_t pair(uint32_t index, int part) const {
    const uint32_t entry = entry_of_grid<Format>(index);
    if constexpr (Format::grid_neighbours == 4) return entry >> (8 * part) & 0x77u;
    const uint32_t four = entry >> (4 * part);
    return (four & 3u) | (four & 12u) << 2;
  }
};

template <class Format>
struct SharedGrid {
  __device__ __forceinline__ void fill(int, int) const {}
};
template <ggml::HasGrid Format>
struct SharedGrid<Format> {
  static constexpr int parts = Format::grid_neighbours / 2;
  alignas(16) uint8_t pairs[Format::grid_entries * parts];

  // Called by so many threads; a barrier must follow.
  __device__ __forceinline__ void fill(int thread, int threads) {
    for (int i = thread; i < Format::grid_entries * parts; i += threads)
      pairs[i] = static_cast<uint8_t>(GridInMemory<Format>{}.pair(static_cast<uint32_t>(i / parts), i % parts));
  }
  __device__ __forceinline__ uint32_t pair(uint32_t index, int part) const { return pairs[index * parts + part]; }
};

// What codes 4i … 4i + 3 stand for with their sign, or their delta's, and the format's offset added, as bytes.
template <class Format, bool sign, int i>
inline constexpr uint32_t word_of_signed = [] {
  uint32_t bytes = 0;
  constexpr int count = Format::grid_neighbours == 8 ? 4 : 8;
  for (int b = 0; b < 4; ++b) {
    const int value = 4 * i + b < count ? ggml::grid_of<Format>().values[4 * i + b] : 0;
    const int number = ggml::HasDeltas<Format> ? value + (sign ? -1 : 1) : sign ? -value : value;
    bytes |= static_cast<uint32_t>(number + Format::grid_offset) << (8 * b);
  }
  return bytes;
}();

// Of 32 neighbours of a row, half h of a stage.
template <class Format>
struct GridHalf {
  using Place = ggml::Tiles<Format>;
  static constexpr bool of_eights = Format::grid_neighbours == 8;
  uint32_t low[of_eights ? 1 : 2], signs, high;

  __device__ __forceinline__ GridHalf(const uint8_t* stage, int row, int half) : signs(sign_word(stage, row, half)) {
    const uint8_t* indices = stage + row * Place::index_bytes + half * (Place::index_bytes / 2);
    if constexpr (of_eights) {
      low[0] = load_vector<uint32_t>(indices);
    } else {
      const uint2 two = load_vector<uint2>(indices);
      low[0] = two.x, low[1] = two.y;
    }
    high = Place::high_bytes > 0 ? stage[Place::high_at + row * 2 + half] : 0u;
  }

  static __device__ __forceinline__ uint32_t sign_word(const uint8_t* stage, int row, int half) {
    const uint8_t* at = stage + Place::signs_at + row * Place::sign_bytes + half * (Place::sign_bytes / 2);
    if constexpr (ggml::HasDeltas<Format>) return load_vector<uint16_t>(at);
    return load_vector<uint32_t>(at);
  }

  __device__ __forceinline__ uint32_t index(int i) const {
    const uint32_t byte = (of_eights || i < 4 ? low[0] : low[of_eights ? 0 : 1]) >> (8 * (i % 4)) & 255u;
    if constexpr (std::is_same_v<Format, ggml::IQ2_XS>) return byte | (signs >> (8 * i + 7) & 1u) << 8;
    if constexpr (std::is_same_v<Format, ggml::IQ2_S>) return byte | (high >> (2 * i) & 3u) << 8;
    if constexpr (std::is_same_v<Format, ggml::IQ3_S>) return byte | (high >> i & 1u) << 8;
    if constexpr (std::is_same_v<Format, ggml::IQ1_S>) return byte | (signs >> (3 * i) & 7u) << 8;
    if constexpr (std::is_same_v<Format, ggml::IQ1_M>) return byte | (signs >> (4 * i) & 7u) << 8;
    return byte;
  }

  // Bits beside the codes in the nibbles of byte g: the signs of neighbours 8g + 2 quarter and the next, or of deltas.
  __device__ __forceinline__ uint32_t signs_of(int quarter) const {
    if constexpr (std::is_same_v<Format, ggml::IQ1_S>) return signs >> 15 != 0 ? 0x44444444u : 0u;
    if constexpr (std::is_same_v<Format, ggml::IQ1_M>) {
      const uint32_t bits =
          (signs >> 3 & 0x01u) | (signs << 1 & 0x0100u) | (signs << 5 & 0x010000u) | (signs << 9 & 0x01000000u);
      return bits * 0x44u;
    }
    uint32_t all = signs;
    if constexpr (!std::is_same_v<Format, ggml::IQ2_S> && !std::is_same_v<Format, ggml::IQ3_S>) {
      all &= 0x7f7f7f7fu;  // neighbour 8g + 7's makes the number of ones even
      const uint32_t nibbles = all ^ all >> 4, pairs = nibbles ^ nibbles >> 2;
      all |= (pairs ^ pairs >> 1) << 7 & 0x80808080u;
    }
    const uint32_t two = all >> (2 * quarter);
    return of_eights ? (two & 0x01010101u) << 2 | (two & 0x02020202u) << 5
                     : (two & 0x01010101u) << 3 | (two & 0x02020202u) << 6;
  }

  // Codes as bytes, of word i < 2 of the half.
  template <class Grid>
  __device__ __forceinline__ uint32_t word(int i, int quarter, uint32_t quarter_signs, const Grid& grid) const {
    uint32_t pairs[2];
    LATHE_UNROLL
    for (int e = 0; e < 2; ++e) {
      const int eight = 2 * i + e;
      if constexpr (of_eights) {
        pairs[e] = grid.pair(index(eight), quarter);
      } else {
        pairs[e] = grid.pair(quarter < 2 ? index(2 * eight) : index(2 * eight + 1), quarter % 2);
      }
    }
    const uint32_t nibbles = pairs[0] | pairs[1] << 8 | (quarter_signs >> (16 * i) & 0xffffu);
    if constexpr (of_eights)
      return __byte_perm(word_of_signed<Format, false, 0>, word_of_signed<Format, true, 0>, nibbles);
    const uint32_t plus =
        __byte_perm(word_of_signed<Format, false, 0>, word_of_signed<Format, false, 1>, nibbles & 0x7777u);
    const uint32_t minus =
        __byte_perm(word_of_signed<Format, true, 0>, word_of_signed<Format, true, 1>, nibbles & 0x7777u);
    return __byte_perm(plus, minus, (nibbles & 0x8888u) >> 1 | 0x3210u);
  }

  // 2·sc + 1 of its i-th 16 neighbours.
  static __device__ __forceinline__ uint32_t odd_scale(const uint8_t* stage, int row, int half, int i) {
    const uint8_t* scales = stage + Place::scales_at + row * Place::scale_bytes;
    uint32_t code;
    if constexpr (std::is_same_v<Format, ggml::IQ1_M>) {
      code = static_cast<uint32_t>(load_vector<uint16_t>(scales)) >> (6 * half + 3 * i) & 7u;
    } else if constexpr (std::is_same_v<Format, ggml::IQ1_S>) {
      code = sign_word(stage, row, half) >> 12 & 7u;
    } else if constexpr (Place::scale_bytes == 2) {
      code = static_cast<uint32_t>(scales[half]) >> (4 * i) & 15u;
    } else if constexpr (Place::scale_bytes == 1) {
      code = static_cast<uint32_t>(scales[0]) >> (4 * half) & 15u;
    } else {  // the four bits come together at bit 24
      code = (sign_word(stage, row, half) >> 7 & 0x01010101u) * 0x01020408u >> 24 & 15u;
    }
    return 2 * code + 1;
  }
};

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
