// Rows of a GGUF file's blocks into the tiles that devices read (tiles.h).
#pragma once

#include <cstdint>

#include "kernels/matmul/weights/ggml/ggml_weight.h"

namespace lathe::kernels::ggml {

// Tiles [first, first + count), one after another at `to`. Rows past the last are zeros.
void pack_tiles(const GgmlRows& rows, int64_t first, int64_t count, uint8_t* to);

}  // namespace lathe::kernels::ggml
