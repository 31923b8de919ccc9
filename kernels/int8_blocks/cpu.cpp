#include "kernels/int8_blocks/bodies.h"

#include "kernels/int8_blocks/least_scale.h"
#include "kernels/simd/bytes.h"
#include "kernels/simd/row.h"

namespace lathe::kernels::LATHE_ISA {
namespace {

constexpr int64_t block = 64;

// 1.5·2^23: adding it rounds a float to an integer, which then stands in the low bits.
LATHE_INLINE VecI nearest_integers(Vec x) {
  const Vec magic = splat(12582912.0f);
  return (VecI)(x + magic) - (VecI)magic;
}

template <class T>
void quantize_row(const Int8QuantizeArgs& args, int64_t row) {
  const T* x = static_cast<const T*>(args.weight.data) + row * args.weight.stride;
  int8_t* codes = args.codes + row * args.columns;
  float* scales = args.scales + row * ((args.columns + block - 1) / block);
  for (int64_t first = 0; first < args.columns; first += block) {
    const int64_t count = args.columns - first < block ? args.columns - first : block;
    Vec largest{};
    for_row(count, [&](int64_t i, int n) { largest = max(abs(load_some(x + first + i, n)), largest); });
    const float scale = max_lanes(largest) / 127.0f;
    scales[first / block] = scale;
    const Vec inverse = splat(1.0f / (scale > int8_least_scale ? scale : int8_least_scale));
    for_row(count, [&](int64_t i, int n) {
      const VecI rounded = nearest_integers(load_some(x + first + i, n) * inverse);
      for (int j = 0; j < n; ++j) codes[first + i + j] = static_cast<int8_t>(rounded[j]);
    });
  }
}

template <class T>
void dequantize_row(const Int8DequantizeArgs& args, int64_t row) {
  T* out = static_cast<T*>(args.out.data) + row * args.out.stride;
  const int8_t* codes = args.codes + row * args.columns;
  const float* scales = args.scales + row * ((args.columns + block - 1) / block);
  for (int64_t first = 0; first < args.columns; first += block) {
    const int64_t count = args.columns - first < block ? args.columns - first : block;
    const Vec scale = splat(scales[first / block]);
    for_row(count, [&](int64_t i, int n) {
      const Vec values = __builtin_convertvector(load_signed_bytes(codes + first + i, n), Vec) * scale;
      store_exactly(out + first + i, values, n);
    });
  }
}

}  // namespace
}  // namespace lathe::kernels::LATHE_ISA

namespace lathe::kernels {

template <Isa>
void int8_quantize_rows(Int8QuantizeArgs args) {
  for (int64_t row = args.row_begin; row < args.row_end; ++row) {
    switch (args.dtype) {
      case DType::f32: quantize_row<float>(args, row); break;
      case DType::bf16: quantize_row<bf16>(args, row); break;
      default: quantize_row<f16>(args, row); break;
    }
  }
}
template void int8_quantize_rows<Isa::LATHE_ISA>(Int8QuantizeArgs);

template <Isa>
void int8_dequantize_rows(Int8DequantizeArgs args) {
  for (int64_t row = args.row_begin; row < args.row_end; ++row) {
    switch (args.dtype) {
      case DType::f32: dequantize_row<float>(args, row); break;
      case DType::bf16: dequantize_row<bf16>(args, row); break;
      default: dequantize_row<f16>(args, row); break;
    }
  }
}
template void int8_dequantize_rows<Isa::LATHE_ISA>(Int8DequantizeArgs);

}  // namespace lathe::kernels
