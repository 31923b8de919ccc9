#include "kernels/nf4/reference.h"

#include <algorithm>
#include <cmath>

#include "kernels/nf4/codebook.h"
#include "kernels/quantization/dynamic_map.h"
#include "kernels/reference/element.h"

namespace lathe::kernels::reference {
namespace {

double at(const Tensor& tensor, int64_t i) { return read(tensor.dtype(), tensor.raw(), i); }
float f32_at(const Tensor& tensor, int64_t i) { return static_cast<float>(at(tensor, i)); }

uint8_t code_of(float x) {
  int code = 0;
  while (code < 15 && x > nf4_codebook.thresholds[code]) ++code;
  return static_cast<uint8_t>(code);
}

double scale_of(const Nf4Weight& weight, int64_t block) {
  if (!weight.nested()) return at(weight.absmax, block);
  const double value = static_cast<double>(signed_dynamic_map().values[weight.absmax_codes.data<uint8_t>()[block]]);
  return value * at(weight.nested_absmax, block / nf4_nested_block) + at(weight.offset, 0);
}

}  // namespace

void nf4_quantize(const Tensor& codes, const Tensor& absmax, const Tensor& weight, int64_t block_size) {
  const int64_t numel = weight.numel();
  std::fill_n(codes.data<uint8_t>(), codes.numel(), uint8_t{0x77});
  for (int64_t first = 0; first < numel; first += block_size) {
    const int64_t last = std::min(first + block_size, numel);
    float largest = 0;
    for (int64_t i = first; i < last; ++i) largest = std::max(largest, std::abs(f32_at(weight, i)));
    write(absmax.dtype(), absmax.raw(), first / block_size, largest);
    const float inverse = 1.0f / std::max(largest, nf4_least_absmax);
    for (int64_t i = first; i < last; ++i) {
      uint8_t& byte = codes.data<uint8_t>()[i / 2];
      const int code = code_of(f32_at(weight, i) * inverse);
      byte = static_cast<uint8_t>(i % 2 == 0 ? code << 4 | (byte & 15) : (byte & 0xf0) | code);
    }
  }
}

void nf4_offset(const Tensor& offset, const Tensor& absmax) {
  double sum = 0;
  for (int64_t i = 0; i < absmax.numel(); ++i) sum += at(absmax, i);
  const double mean = absmax.numel() == 0 ? 0.0 : sum / static_cast<double>(absmax.numel());
  write(offset.dtype(), offset.raw(), 0, static_cast<float>(mean));
}

void nf4_nest(const Tensor& absmax_codes, const Tensor& nested_absmax, const Tensor& absmax, const Tensor& offset) {
  for (int64_t first = 0; first < absmax.numel(); first += nf4_nested_block) {
    const int64_t last = std::min(first + nf4_nested_block, absmax.numel());
    float largest = 0;
    for (int64_t i = first; i < last; ++i) largest = std::max(largest, std::abs(f32_at(absmax, i) - f32_at(offset, 0)));
    write(nested_absmax.dtype(), nested_absmax.raw(), first / nf4_nested_block, largest);
    const float inverse = 1.0f / std::max(largest, nf4_least_absmax);
    for (int64_t i = first; i < last; ++i)
      absmax_codes.data<uint8_t>()[i] =
          nearest_code(signed_dynamic_map(), (f32_at(absmax, i) - f32_at(offset, 0)) * inverse);
  }
}

void nf4_dequantize(const Tensor& out, const Nf4Weight& weight, int64_t first_row) {
  const int64_t first = first_row * weight.columns;
  for (int64_t i = first; i < first + out.numel(); ++i) {
    const int byte = weight.codes.data<uint8_t>()[i / 2];
    const double value = static_cast<double>(nf4_codebook.values[i % 2 == 0 ? byte >> 4 : byte & 15]);
    write(out.dtype(), out.raw(), i - first, value * scale_of(weight, i / weight.block_size));
  }
}

}  // namespace lathe::kernels::reference
