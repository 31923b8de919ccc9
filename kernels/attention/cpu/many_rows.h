// Tiles of more query rows than a decode step has. Included by this folder's sources only.
#pragma once

#include "kernels/attention/cpu/tile.h"

namespace lathe::kernels::LATHE_ISA {

// As attention_tile and attention_tile_chunks (kernels/attention/cpu/tile.h), with the same bits.
void many_rows_tile(const TileTask& task);
void many_rows_tile_chunks(const TileTask& task);

}  // namespace lathe::kernels::LATHE_ISA
