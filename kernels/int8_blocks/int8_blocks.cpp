#include "kernels/int8_blocks/int8_blocks.h"

#include <string>

#include "core/error.h"
#include "kernels/arguments/run_rows.h"
#include "kernels/checks/expect.h"
#include "kernels/int8_blocks/bodies.h"
#include "kernels/int8_blocks/reference.h"

namespace lathe::kernels {
namespace {

constexpr auto storable = {DType::f32, DType::bf16, DType::f16, DType::f64};
constexpr auto on_devices = {DType::f32, DType::bf16, DType::f16};

int64_t blocks_of(int64_t columns) { return (columns + int8_block - 1) / int8_block; }

}  // namespace

Int8Weight allocate_int8(int64_t rows, int64_t columns, Device device, MemoryTag tag) {
  return {Tensor::empty({rows, columns}, DType::i8, device, tag),
          Tensor::empty({rows, blocks_of(columns)}, DType::f32, device, tag)};
}

void check_int8(const char* operation, const Int8Weight& weight) {
  expect(operation, "codes", weight.codes).rank(2).dtype(DType::i8).contiguous();
  expect(operation, "scales", weight.scales)
      .shape({weight.rows(), blocks_of(weight.columns())})
      .dtype({DType::f32, DType::f64})
      .contiguous()
      .device(weight.device());
}

Int8Weight quantize_int8(const Tensor& weight, MemoryTag tag) {
  expect("quantize_int8", "weight", weight).rank(2);
  const Int8Weight result = allocate_int8(weight.dim(0), weight.dim(1), weight.device(), tag);
  int8_quantize(result, weight);
  return result;
}

void int8_quantize(const Int8Weight& out, const Tensor& weight) {
  constexpr const char* operation = "int8_quantize";
  check_int8(operation, out);
  expect(operation, "weight", weight)
      .shape({out.rows(), out.columns()})
      .dtype(storable)
      .rows_contiguous()
      .device(out.device());
  if (weight.numel() == 0) return;
  const bool on_cpu = weight.device().kind == DeviceKind::cpu;
  if (on_cpu && weight.dtype() == DType::f64) return reference::int8_quantize(out, weight);
  if (!on_cpu) expect(operation, "weight", weight).dtype(on_devices);
  const Int8QuantizeArgs args{
      weight.dtype(), matrix_of(weight), out.codes.data<int8_t>(), out.scales.data<float>(), weight.dim(1), 0,
      weight.dim(0)};
  run_rows(
      args, weight.device(), []<auto target>(const Int8QuantizeArgs& rows) { int8_quantize_rows<target>(rows); });
}

void int8_dequantize(const Tensor& out, const Int8Weight& weight, int64_t first_row) {
  constexpr const char* operation = "int8_dequantize";
  check_int8(operation, weight);
  expect(operation, "out", out).rank(2).dtype(storable).rows_contiguous().device(weight.device());
  if (first_row < 0 || first_row + out.dim(0) > weight.rows() || out.dim(1) != weight.columns())
    throw ShapeError(std::string(operation) + ": out: expected rows of " + std::to_string(weight.columns()) +
                     " out of " + std::to_string(weight.rows()) + ", found " + describe(out) + " from row " +
                     std::to_string(first_row));
  if (out.numel() == 0) return;
  const bool on_cpu = out.device().kind == DeviceKind::cpu;
  if (on_cpu && out.dtype() == DType::f64) return reference::int8_dequantize(out, weight, first_row);
  if (!on_cpu) expect(operation, "out", out).dtype(on_devices);
  const Int8DequantizeArgs args{out.dtype(),
                                matrix_of(out),
                                weight.codes.data<int8_t>() + first_row * weight.columns(),
                                weight.scales.data<float>() + first_row * weight.scales.dim(1),
                                weight.columns(),
                                0,
                                out.dim(0)};
  run_rows(
      args, out.device(), []<auto target>(const Int8DequantizeArgs& rows) { int8_dequantize_rows<target>(rows); });
}

}  // namespace lathe::kernels
