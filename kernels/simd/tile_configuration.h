// What AMX's tiles are set up with: all eight have 16 rows of 64 bytes. Apart from amx.h, for whoever is not compiled
// for that set.
#pragma once

#include <cstdint>

namespace lathe::kernels {

// As ldtilecfg reads it.
struct alignas(64) TileConfiguration {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(TileConfiguration) == 64);

inline constexpr TileConfiguration tile_configuration;

}  // namespace lathe::kernels
