// Products on a device of many rows by a weight in codes, which tiles read dense: its rows are dequantised into one
// room of workspace, a band after another, and multiplied from there.
#pragma once

#include "kernels/matmul/matmul.h"

namespace lathe::kernels {

// What is dequantised at a time. An output projection of 128k rows by 4096 takes 1 GiB as a whole, and a layer's 14336
// × 4096 two bands. A band of half the size would be read from an H100's second-level cache (50 MB) where it was just
// written, which saves a card that multiplies 512 rows a tenth of its time on paper; but 65 to 256 rows by 4096 rows of
// a weight are 32 to 64 tiles for 132 multiprocessors, and take up to twice as long.
inline constexpr int64_t most_band_bytes = int64_t{64} << 20;

// The rows of each band but the last, so that all are about as long: a multiple of 256, and of 256 where these are more
// than a band.
int64_t rows_of_band(int64_t rows, int64_t row_bytes, int64_t band_bytes);

// linear_forward(out, x, weight, terms) by a weight that is quantised or in ggml's blocks, with the bits of the product
// by all of it: an element's do not depend on what is computed beside it.
void linear_forward_in_bands(const Tensor& out, const Tensor& x, const Weight& weight, const LinearTerms& terms,
                             int64_t band_bytes = most_band_bytes);

}  // namespace lathe::kernels
