#include "kernels/matmul/grouped.h"

#include "core/error.h"
#include "kernels/checks/expect.h"
#include "kernels/dispatch.h"
#include "kernels/matmul/cuda/grouped.h"
#include "kernels/matmul/device.h"
#include "kernels/matmul/operands.h"
#include "kernels/matmul/weights/ggml/cuda/bodies.h"

namespace lathe::kernels {
namespace {

void check(const char* operation, const Tensor& out, const Tensor& x, const WeightTable& weights,
           const WeightGroups& groups) {
  if (!weights.defined()) throw ShapeError(std::string(operation) + ": expected a table of weights, found none");
  const Device device = weights.device();
  const auto matrix = [&](const char* name, const Tensor& tensor, int64_t rows, int64_t columns) {
    expect(operation, name, tensor).shape({rows, columns}).dtype(weights.dtype()).rows_contiguous().device(device);
  };
  expect(operation, "x", x).rank(2);
  expect(operation, "out", out).rank(2);
  matrix("x", x, x.dim(0), weights.columns());
  matrix("out", out, out.dim(0), weights.rows());
  const bool dense = weights.first().dense() || weights.first().packed();
  if (!dense && !device::suits_codes(x.slice(0, 0, 1)))
    throw ShapeError(std::string(operation) + ": expected rows of x at multiples of 16 bytes, found " + describe(x));
  expect(operation, "numbers", groups.numbers).rank(1).dtype(DType::i32).contiguous().device(device);
  const Shape bounds{groups.numbers.dim(0) + 1};
  expect(operation, "bounds", groups.bounds).shape(bounds).dtype(DType::i32).contiguous().device(device);
}

GroupedWeights places_of(const WeightTable& table) {
  return {table.places().raw(),
          table.biases().defined() ? static_cast<const void* const*>(table.biases().raw()) : nullptr};
}

GroupedArgs arguments(const Tensor& out, const Tensor& x, const WeightTable& weights, const WeightGroups& groups) {
  return {.dtype = weights.dtype(),
          .n = weights.rows(),
          .k = weights.columns(),
          .left = product_matrix(x),
          .out = product_matrix(out),
          .numbers = groups.numbers.data<int32_t>(),
          .bounds = groups.bounds.data<int32_t>(),
          .groups = groups.numbers.dim(0),
          .rows = nullptr,
          .weights = places_of(weights)};
}

void multiply(const GroupedArgs& args, const WeightTable& weights) {
  const Weight& first = weights.first();
  with_device(weights.device(), [&]<DeviceKind kind>() {
    if (const QuantizedWeight* codes = first.quantized())
      return grouped_quantized<kind>(args, device::with_codes({.dtype = args.dtype}, *codes));
    if (const GgmlWeight* ggml = first.ggml()) return grouped_blocks<kind>(args, ggml->format(), ggml->panels().dim(1));
    grouped_dense<kind>(args, product_matrix(first).stride);
  });
}

}  // namespace

void grouped_linear(const Tensor& out, const Tensor& x, const WeightTable& weights, const WeightGroups& groups) {
  check("grouped_linear", out, x, weights, groups);
  expect("grouped_linear", "x", x).shape({out.dim(0), x.dim(1)});
  if (out.numel() > 0) multiply(arguments(out, x, weights, groups), weights);
}

void grouped_gated_linear(const Tensor& out, const Tensor& x, const Tensor& rows, const WeightTable& gate,
                          const WeightTable& up, const WeightGroups& groups, GateKind kind) {
  constexpr const char* operation = "grouped_gated_linear";
  check(operation, out, x, gate, groups);
  if (!gate.goes_with(up)) throw ShapeError(std::string(operation) + ": gate and up are of two kinds, or shapes");
  expect(operation, "rows", rows).shape({out.dim(0)}).dtype(DType::i32).contiguous().device(x.device());
  if (out.numel() == 0) return;
  GroupedArgs args = arguments(out, x, gate, groups);
  args.rows = rows.data<int32_t>();
  args.up = places_of(up);
  args.gate = kind;
  multiply(args, gate);
}

}  // namespace lathe::kernels
