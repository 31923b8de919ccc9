#include "kernels/matmul/device.h"

#include <vector>

#include "kernels/dispatch.h"
#include "kernels/matmul/cuda/product.h"

namespace lathe::kernels::device {
QuantizedProductArgs with_codes(const ProductArgs& product, const QuantizedWeight& weight) {
  QuantizedProductArgs args{.product = product};
  with_format(weight.format(),
              [&]<class Format>() { Format::set_codes(args, std::get<typename Format::Stored>(weight.stored())); });
  return args;
}

void multiply(const ProductArgs& args, Device device) {
  if (args.m == 0 || args.n == 0) return;
  with_device(device, [&]<DeviceKind kind>() {
    if (args.dtype != DType::f32) return product_tiles<kind>(args);
    if (few_rows_f32<kind>(args)) return;
    const int64_t floats = product_tiles_f32_room<kind>(args);
    const Tensor room = floats > 0 ? Tensor::empty({floats}, DType::f32, device, MemoryTag::workspace) : Tensor{};
    product_tiles_f32<kind>(args, room.defined() ? room.data<float>() : nullptr);
  });
}

bool suits_codes(const Tensor& x) {
  if (x.dtype() == DType::f32) return x.dim(0) <= most_fused_rows;
  const bool aligned = reinterpret_cast<uintptr_t>(x.raw()) % 16 == 0 && x.stride(0) * size_of(x.dtype()) % 16 == 0;
  return x.dim(0) <= most_fused_rows_16_bit && aligned;
}

bool suits_codes(const QuantizedWeight& weight) {
  const void* codes = std::visit([](const auto& stored) { return stored.codes.raw(); }, weight.stored());
  return weight.group() == 64 && reinterpret_cast<uintptr_t>(codes) % 16 == 0;
}

bool multiplies_codes(const Tensor& x, const QuantizedWeight& weight) { return suits_codes(x) && suits_codes(weight); }

void multiply_codes(const ProductArgs& args, const QuantizedWeight& weight, Device device) {
  if (args.m == 0 || args.n == 0) return;
  const QuantizedProductArgs codes = with_codes(args, weight);
  with_device(device, [&]<DeviceKind kind>() {
    args.dtype == DType::f32 ? quantized_few_rows_f32<kind>(codes) : quantized_product_tiles<kind>({&codes, 1});
  });
}

void multiply_codes(std::span<const CodesProduct> products, Device device) {
  std::vector<QuantizedProductArgs> all;
  for (const CodesProduct& each : products) all.push_back(with_codes(each.args, *each.weight));
  with_device(device, [&]<DeviceKind kind>() {
    quantized_product_tiles<kind>({all.data(), static_cast<int>(all.size())});
  });
}

void multiply_gated_codes(const CodesProduct& gate, const CodesProduct& up, const GatedResult& result, Device device) {
  with_device(device, [&]<DeviceKind kind>() {
    quantized_gated_tiles<kind>(with_codes(gate.args, *gate.weight), with_codes(up.args, *up.weight), result);
  });
}

void multiply_codes_gemv(const ProductArgs& args, const QuantizedWeight& weight, Device device) {
  if (args.m == 0 || args.n == 0) return;
  const QuantizedProductArgs codes = with_codes(args, weight);
  with_device(device, [&]<DeviceKind kind>() { quantized_gemv_columns<kind>(codes); });
}

}  // namespace lathe::kernels::device
