#include "kernels/nf4/nf4.h"

#include <algorithm>
#include <string>

#include "core/error.h"
#include "core/thread_pool.h"
#include "kernels/checks/expect.h"
#include "kernels/dispatch.h"
#include "kernels/nf4/bodies.h"
#include "kernels/nf4/reference.h"
#include "kernels/nf4/scale.h"
#include "kernels/quantization/dynamic_map.h"

namespace lathe::kernels {
namespace {

constexpr auto storable = {DType::f32, DType::bf16, DType::f16, DType::f64};
constexpr int64_t elements_at_once = 1 << 15;  // some microseconds of work for a thread

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

void check_block_size(const char* operation, int64_t block_size) {
  if (block_size >= 32 && block_size <= 4096 && (block_size & (block_size - 1)) == 0) return;
  throw ConfigError("block_size", std::string(operation) + " expected a power of two from 32 to 4096, found " +
                                      std::to_string(block_size));
}

void check_vector(const char* operation, const char* argument, const Tensor& tensor, int64_t elements, DType dtype,
                  Device device) {
  expect(operation, argument, tensor).shape({elements}).dtype(dtype).contiguous().device(device);
}

void check_codes(const char* operation, const Tensor& codes, int64_t numel, Device device) {
  expect(operation, "codes", codes).dtype(DType::u8).contiguous().device(device);
  if (codes.numel() != ceil_div(numel, 2))
    throw ShapeError(std::string(operation) + ": codes: expected " + std::to_string(ceil_div(numel, 2)) +
                     " bytes for " + std::to_string(numel) + " elements, found " + describe(codes));
}

// f32, or f64 beside an f64 weight.
DType scale_dtype(const Tensor& weight) { return weight.dtype() == DType::f64 ? DType::f64 : DType::f32; }

}  // namespace

int64_t Nf4Weight::nbytes() const {
  int64_t bytes = 0;
  for (const Tensor* tensor : {&codes, &absmax, &absmax_codes, &nested_absmax, &offset})
    if (tensor->defined()) bytes += tensor->nbytes();
  return bytes;
}

Nf4Weight allocate_nf4(int64_t rows, int64_t columns, int64_t block_size, Nf4Scales scales, Device device,
                       MemoryTag tag) {
  check_block_size("allocate_nf4", block_size);
  Nf4Weight weight{.rows = rows, .columns = columns, .block_size = block_size};
  weight.codes = Tensor::empty({ceil_div(weight.numel(), 2)}, DType::u8, device, tag);
  if (scales == Nf4Scales::plain) {
    weight.absmax = Tensor::empty({weight.blocks()}, DType::f32, device, tag);
  } else {
    weight.absmax_codes = Tensor::empty({weight.blocks()}, DType::u8, device, tag);
    weight.nested_absmax = Tensor::empty({ceil_div(weight.blocks(), nf4_nested_block)}, DType::f32, device, tag);
    weight.offset = Tensor::empty({1}, DType::f32, device, tag);
  }
  return weight;
}

void check_nf4(const char* operation, const Nf4Weight& weight) {
  check_block_size(operation, weight.block_size);
  expect(operation, "codes", weight.codes);
  const Device device = weight.device();
  check_codes(operation, weight.codes, weight.numel(), device);
  const Tensor& floating = weight.nested() ? weight.nested_absmax : weight.absmax;
  expect(operation, weight.nested() ? "nested_absmax" : "absmax", floating).dtype({DType::f32, DType::f64});
  const DType dtype = floating.dtype();
  if (!weight.nested()) return check_vector(operation, "absmax", weight.absmax, weight.blocks(), dtype, device);
  check_vector(operation, "absmax_codes", weight.absmax_codes, weight.blocks(), DType::u8, device);
  check_vector(operation, "nested_absmax", weight.nested_absmax, ceil_div(weight.blocks(), nf4_nested_block), dtype,
               device);
  check_vector(operation, "offset", weight.offset, 1, dtype, device);
}

Nf4ScaleArgs nf4_scale_args(const Nf4Weight& weight) {
  if (!weight.nested()) return {.absmax = weight.absmax.data<float>()};
  return {.codes = weight.absmax_codes.data<uint8_t>(),
          .nested_absmax = weight.nested_absmax.data<float>(),
          .offset = weight.offset.data<float>(),
          .map = signed_dynamic_map().values.data()};
}

void nf4_expand_scales(const Nf4Weight& weight, float* scales) {
  const Nf4ScaleArgs from = nf4_scale_args(weight);
  for (int64_t block = 0; block < weight.blocks(); ++block) {
    if (from.absmax != nullptr) {
      scales[block] = from.absmax[block];
    } else {
      const float product = from.map[from.codes[block]] * from.nested_absmax[block / nf4_nested_block];
      scales[block] = product + *from.offset;
    }
  }
}

Nf4Weight quantize_nf4(const Tensor& weight, int64_t block_size, Nf4Scales scales, MemoryTag tag) {
  expect("quantize_nf4", "weight", weight).rank(2);
  Nf4Weight result = allocate_nf4(weight.dim(0), weight.dim(1), block_size, scales, weight.device(), tag);
  if (scales == Nf4Scales::plain) {
    nf4_quantize(result.codes, result.absmax, weight, block_size);
    return result;
  }
  const Tensor absmax = Tensor::empty({result.blocks()}, DType::f32, weight.device(), MemoryTag::workspace);
  nf4_quantize(result.codes, absmax, weight, block_size);
  nf4_offset(result.offset, absmax);
  nf4_nest(result.absmax_codes, result.nested_absmax, absmax, result.offset);
  return result;
}

void nf4_quantize(const Tensor& codes, const Tensor& absmax, const Tensor& weight, int64_t block_size) {
  constexpr const char* operation = "nf4_quantize";
  check_block_size(operation, block_size);
  expect(operation, "weight", weight).rank(2).dtype(storable).contiguous();
  const int64_t numel = weight.numel(), blocks = ceil_div(numel, block_size);
  check_codes(operation, codes, numel, weight.device());
  expect(operation, "absmax", absmax).dtype({DType::f32, scale_dtype(weight)});
  check_vector(operation, "absmax", absmax, blocks, absmax.dtype(), weight.device());
  if (numel == 0) return;
  const bool on_cpu = weight.device().kind == DeviceKind::cpu;
  if (on_cpu && weight.dtype() == DType::f64) return reference::nf4_quantize(codes, absmax, weight, block_size);
  Nf4QuantizeArgs args{weight.dtype(),        weight.raw(),         numel, block_size,
                       codes.data<uint8_t>(), absmax.data<float>(), 0,     blocks};
  if (!on_cpu) {
    expect(operation, "weight", weight).dtype({DType::f32, DType::bf16, DType::f16});
    return with_device(weight.device(), [&]<DeviceKind kind>() { nf4_quantize_blocks<kind>(args); });
  }
  parallel_for(blocks, std::max<int64_t>(1, elements_at_once / block_size), [&](int64_t begin, int64_t end) {
    Nf4QuantizeArgs range = args;
    range.block_begin = begin;
    range.block_end = end;
    with_isa([&]<Isa isa>() { nf4_quantize_blocks<isa>(range); });
  });
}

void nf4_offset(const Tensor& offset, const Tensor& absmax) {
  constexpr const char* operation = "nf4_offset";
  expect(operation, "absmax", absmax).rank(1).dtype({DType::f32, DType::f64}).contiguous();
  check_vector(operation, "offset", offset, 1, absmax.dtype(), absmax.device());
  if (absmax.device().kind == DeviceKind::cpu)
    return reference::nf4_offset(offset, absmax);  // already as wide as it gets
  with_device(absmax.device(), [&]<DeviceKind kind>() {
    nf4_offset_of<kind>({absmax.data<float>(), absmax.numel(), offset.data<float>()});
  });
}

void nf4_nest(const Tensor& absmax_codes, const Tensor& nested_absmax, const Tensor& absmax, const Tensor& offset) {
  constexpr const char* operation = "nf4_nest";
  expect(operation, "absmax", absmax).rank(1).dtype({DType::f32, DType::f64}).contiguous();
  const int64_t count = absmax.numel(), blocks = ceil_div(count, nf4_nested_block);
  const Device device = absmax.device();
  check_vector(operation, "absmax_codes", absmax_codes, count, DType::u8, device);
  check_vector(operation, "nested_absmax", nested_absmax, blocks, absmax.dtype(), device);
  check_vector(operation, "offset", offset, 1, absmax.dtype(), device);
  if (count == 0) return;
  if (absmax.dtype() == DType::f64) {
    expect_cpu(operation, absmax);
    return reference::nf4_nest(absmax_codes, nested_absmax, absmax, offset);
  }
  const Nf4NestArgs args{absmax.data<float>(),
                         offset.data<float>(),
                         signed_dynamic_map().thresholds.data(),
                         count,
                         absmax_codes.data<uint8_t>(),
                         nested_absmax.data<float>(),
                         0,
                         blocks};
  if (device.kind != DeviceKind::cpu)
    return with_device(device, [&]<DeviceKind kind>() { nf4_nest_blocks<kind>(args); });
  parallel_for(blocks, 64, [&](int64_t begin, int64_t end) {
    Nf4NestArgs range = args;
    range.block_begin = begin;
    range.block_end = end;
    with_isa([&]<Isa isa>() { nf4_nest_blocks<isa>(range); });
  });
}

void nf4_dequantize(const Tensor& out, const Nf4Weight& weight, int64_t first_row) {
  constexpr const char* operation = "nf4_dequantize";
  check_nf4(operation, weight);
  expect(operation, "out", out).rank(2).dtype(storable).contiguous().device(weight.device());
  if (first_row < 0 || first_row + out.dim(0) > weight.rows || out.dim(1) != weight.columns)
    throw ShapeError(std::string(operation) + ": out: expected rows of " + std::to_string(weight.columns) + " out of " +
                     std::to_string(weight.rows) + ", found " + describe(out) + " from row " +
                     std::to_string(first_row));
  if (out.numel() == 0) return;
  const bool on_cpu = out.device().kind == DeviceKind::cpu;
  if (on_cpu && out.dtype() == DType::f64) return reference::nf4_dequantize(out, weight, first_row);
  const int64_t first = first_row * weight.columns;
  const Nf4DequantizeArgs args{
      out.dtype(), out.raw(), weight.codes.data<uint8_t>(), nf4_scale_args(weight), weight.block_size,
      first,       first,     first + out.numel()};
  if (!on_cpu) {
    expect(operation, "out", out).dtype({DType::f32, DType::bf16, DType::f16});
    return with_device(out.device(), [&]<DeviceKind kind>() { nf4_dequantize_elements<kind>(args); });
  }
  parallel_for(out.numel(), elements_at_once, [&](int64_t begin, int64_t end) {
    Nf4DequantizeArgs range = args;
    range.begin = first + begin;
    range.end = first + end;
    with_isa([&]<Isa isa>() { nf4_dequantize_elements<isa>(range); });
  });
}

}  // namespace lathe::kernels
