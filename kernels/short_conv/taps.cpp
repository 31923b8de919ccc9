#include "kernels/short_conv/taps.h"

#include <string>

#include "core/error.h"
#include "core/tensor.h"
#include "kernels/checks/expect.h"

namespace lathe::kernels {

void expect_conv(const char* operation, const char* argument, const Tensor& x, int64_t parts, const Tensor& weight,
                 const Tensor& bias) {
  expect(operation, argument, x).rank(2).dtype({DType::f32, DType::bf16, DType::f16, DType::f64}).rows_contiguous();
  expect_body(operation, argument, x);
  expect(operation, "weight", weight).rank(2).dtype(x.dtype()).contiguous().device(x.device());
  if (weight.dim(1) < 1 || weight.dim(1) > most_conv_taps)
    throw ShapeError(std::string(operation) + ": weight expects from 1 to " + std::to_string(most_conv_taps) +
                     " taps, found " + describe(weight));
  expect(operation, argument, x).shape({x.dim(0), parts * weight.dim(0)});
  if (bias.defined())
    expect(operation, "bias", bias).shape({weight.dim(0)}).dtype(x.dtype()).contiguous().device(x.device());
}

void expect_conv_rows(const char* operation, const char* argument, const Tensor& rows, int64_t columns,
                      const Tensor& x) {
  expect(operation, argument, rows).shape({x.dim(0), columns}).dtype(x.dtype()).rows_contiguous().device(x.device());
}

void expect_conv_gradient(const char* operation, const char* argument, const Tensor& gradient, const Tensor& of) {
  if (!gradient.defined()) return;
  if (!of.defined())
    throw ShapeError(std::string(operation) + ": " + argument + " is given, and what it is the gradient of is not");
  expect(operation, argument, gradient)
      .shape(of.shape())
      .dtype(of.dtype() == DType::f64 ? DType::f64 : DType::f32)
      .contiguous()
      .device(of.device());
}

ConvTaps conv_taps_of(const Tensor& weight, const Tensor& bias) {
  return {.dtype = weight.dtype(),
          .weight = weight.raw(),
          .bias = bias.defined() ? bias.raw() : nullptr,
          .columns = weight.dim(0),
          .taps = static_cast<int>(weight.dim(1))};
}

}  // namespace lathe::kernels
