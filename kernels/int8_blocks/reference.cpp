#include "kernels/int8_blocks/reference.h"

#include <algorithm>
#include <cmath>

#include "kernels/int8_blocks/least_scale.h"
#include "kernels/reference/element.h"

namespace lathe::kernels::reference {

void int8_quantize(const Int8Weight& out, const Tensor& weight) {
  const int64_t columns = weight.dim(1), blocks = out.scales.dim(1);
  const auto x = [&](int64_t row, int64_t i) {
    return static_cast<float>(read(weight.dtype(), weight.raw(), row * weight.stride(0) + i));
  };
  for (int64_t row = 0; row < weight.dim(0); ++row) {
    for (int64_t block = 0; block < blocks; ++block) {
      const int64_t first = block * int8_block, last = std::min(first + int8_block, columns);
      float absmax = 0;
      for (int64_t i = first; i < last; ++i) absmax = std::max(absmax, std::abs(x(row, i)));
      const float scale = absmax / 127.0f, inverse = 1.0f / std::max(scale, int8_least_scale);
      write(out.scales.dtype(), out.scales.raw(), row * blocks + block, scale);
      for (int64_t i = first; i < last; ++i)
        out.codes.data<int8_t>()[row * columns + i] = static_cast<int8_t>(std::nearbyint(x(row, i) * inverse));
    }
  }
}

void int8_dequantize(const Tensor& out, const Int8Weight& weight, int64_t first_row) {
  const int64_t columns = weight.columns(), blocks = weight.scales.dim(1);
  for (int64_t row = 0; row < out.dim(0); ++row) {
    for (int64_t i = 0; i < columns; ++i) {
      const double code = weight.codes.data<int8_t>()[(first_row + row) * columns + i];
      const double scale =
          read(weight.scales.dtype(), weight.scales.raw(), (first_row + row) * blocks + i / int8_block);
      write(out.dtype(), out.raw(), row * out.stride(0) + i, code * scale);
    }
  }
}

}  // namespace lathe::kernels::reference
