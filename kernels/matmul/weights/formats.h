// The block formats of quantised weights that products read: the one list. A format is a folder beside this file with
//   <format>_format.h  a struct of static functions: what is stored, and where a row's codes lie in a panel
//   cpu.cpp            its bodies for each instruction set (cpu/codes.h)
//   decode.cuh         its decoder in CUDA (decode.cuh)
#pragma once

#include <cstddef>
#include <cstdint>
#include <tuple>

#include "kernels/matmul/weights/int8/int8_format.h"
#include "kernels/matmul/weights/nf4/nf4_format.h"
#include "kernels/simd/inline.h"

namespace lathe::kernels {

enum class QuantizedFormat : uint8_t { nf4, int8 };
using QuantizedFormats = std::tuple<Nf4Format, Int8Format>;  // in that order

// body.operator()<Format>() with the struct of a format.
template <std::size_t first = 0, class Body>
LATHE_INLINE decltype(auto) with_format(QuantizedFormat format, const Body& body) {
  if constexpr (first + 1 < std::tuple_size_v<QuantizedFormats>)
    if (format != static_cast<QuantizedFormat>(first)) return with_format<first + 1>(format, body);
  return body.template operator()<std::tuple_element_t<first, QuantizedFormats>>();
}

}  // namespace lathe::kernels
