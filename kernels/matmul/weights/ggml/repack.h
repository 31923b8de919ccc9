// One row's block of the file to and from its place in a unit of a panel (ggml_formats.h).
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/matmul/weights/ggml/ggml_formats.h"

namespace lathe::kernels::ggml {

template <class Format>
void pack_block(const std::byte* block, uint8_t* unit, int64_t lane);
// Its Format::elements values; of formats with grids after expand_grids().
template <class Format>
void unpack_block(const uint8_t* unit, int64_t lane, float* values);

}  // namespace lathe::kernels::ggml
