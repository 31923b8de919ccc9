// Rows of formats with grids into a tile (tiles.h). For pack_tiles.cpp.
#pragma once

#include <cstring>

#include "kernels/matmul/weights/ggml/file_blocks.h"
#include "kernels/matmul/weights/ggml/tiles.h"

namespace lathe::kernels::ggml {

// The word of signs, with what lies in the place of those of neighbours 8g + 7.
template <class Format>
uint32_t device_signs(const GridBlock& found) {
  uint32_t signs = found.signs;
  if constexpr (std::is_same_v<Format, IQ2_S> || std::is_same_v<Format, IQ3_S>) return signs;
  for (int g = 0; g < 4; ++g) {
    const uint32_t bit = std::is_same_v<Format, IQ2_XS> ? found.indices[g] >> 8 : found.scales[0] >> g & 1u;
    signs = (signs & ~(128u << (8 * g))) | bit << (8 * g + 7);
  }
  return signs;
}

// Half h of a stage: the j-th 32 neighbours of block `in`.
template <class Format>
void put_grid_half(uint8_t* stage, int64_t row, int h, const std::byte* in, int64_t j) {
  using Place = Tiles<Format>;
  const GridBlock found = grid_block<Format>(in, j);
  constexpr int count = Place::index_bytes / 2;
  for (int i = 0; i < count; ++i)
    stage[row * Place::index_bytes + h * count + i] = static_cast<uint8_t>(found.indices[i]);
  uint8_t* const signs = stage + Place::signs_at + row * Place::sign_bytes + h * (Place::sign_bytes / 2);
  if constexpr (HasDeltas<Format>) {
    std::memcpy(signs, in + (Format::scales == 1 ? 34 : 32) + 2 * j, 2);
  } else {
    const uint32_t word = device_signs<Format>(found);
    std::memcpy(signs, &word, 4);
  }
  if constexpr (Place::high_bytes > 0) stage[Place::high_at + row * 2 + h] = static_cast<uint8_t>(in[66 + j]);
  uint8_t* const scales = stage + Place::scales_at + row * Place::scale_bytes;
  if constexpr (std::is_same_v<Format, IQ1_M>) {
    std::memcpy(scales, in + 48 + j / 2 * 2, 2);
  } else if constexpr (Place::scale_bytes == 2) {
    scales[h] = static_cast<uint8_t>(found.scales[0] | found.scales[1] << 4);
  } else if constexpr (Place::scale_bytes == 1) {
    scales[0] = static_cast<uint8_t>(in[106 + j / 2]);
  }
}

}  // namespace lathe::kernels::ggml
