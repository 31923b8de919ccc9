#include "kernels/short_conv/short_conv.h"

#include <algorithm>
#include <string>

#include "core/error.h"
#include "kernels/arguments/run_rows.h"
#include "kernels/checks/expect.h"
#include "kernels/dispatch.h"
#include "kernels/paged_attention/device.h"
#include "kernels/short_conv/bodies.h"
#include "kernels/short_conv/reference.h"

namespace lathe::kernels {
namespace {

constexpr auto floating = {DType::f32, DType::bf16, DType::f16, DType::f64};

void check_rows(const char* operation, const char* argument, const Tensor& tensor, const Shape& shape,
                const Tensor& bcx) {
  expect(operation, argument, tensor).shape(shape).dtype(bcx.dtype()).rows_contiguous().device(bcx.device());
}

void check(const char* operation, const Tensor& bcx, const Tensor& weight, const Tensor& bias) {
  expect(operation, "bcx", bcx).rank(2).dtype(floating).rows_contiguous();
  expect_body(operation, "bcx", bcx);
  expect(operation, "weight", weight).rank(2).dtype(bcx.dtype()).contiguous().device(bcx.device());
  if (weight.dim(1) < 1 || weight.dim(1) > most_conv_taps)
    throw ShapeError(std::string(operation) + ": weight expects from 1 to " + std::to_string(most_conv_taps) +
                     " taps, found " + describe(weight));
  expect(operation, "bcx", bcx).shape({bcx.dim(0), 3 * weight.dim(0)});
  if (bias.defined())
    expect(operation, "bias", bias).shape({weight.dim(0)}).dtype(bcx.dtype()).contiguous().device(bcx.device());
}

ShortConv convolution_of(const Tensor& bcx, const Tensor& weight, const Tensor& bias) {
  return {.dtype = bcx.dtype(),
          .bcx = matrix_of(bcx),
          .weight = weight.raw(),
          .bias = bias.defined() ? bias.raw() : nullptr,
          .columns = weight.dim(0),
          .taps = static_cast<int>(weight.dim(1))};
}

void forward(const ShortConvForwardArgs& args, Device device) {
  run_rows(
      args, device, args.taps * args.columns,
      []<auto target>(const ShortConvForwardArgs& rows) { short_conv_forward_rows<target>(rows); });
}

void weight_grad(const ShortConvWeightGradArgs& args, Device device, int64_t tokens) {
  if (device.kind != DeviceKind::cpu)
    return with_device(device, [&]<DeviceKind kind>() { short_conv_weight_grad_columns<kind>(args); });
  // Whole cache lines of each row.
  const int64_t grain = std::max<int64_t>(64, row_grain(tokens * args.taps) / 64 * 64);
  parallel_for(args.columns, grain, [&](int64_t begin, int64_t end) {
    ShortConvWeightGradArgs range = args;
    range.column_begin = begin;
    range.column_end = end;
    with_isa([&]<Isa isa>() { short_conv_weight_grad_columns<isa>(range); });
  });
}

void check_gradient(const char* operation, const char* argument, const Tensor& gradient, const Tensor& of) {
  if (!gradient.defined()) return;
  expect(operation, argument, gradient)
      .shape(of.shape())
      .dtype(of.dtype() == DType::f64 ? DType::f64 : DType::f32)
      .contiguous()
      .device(of.device());
}

}  // namespace

void short_conv_forward(const Tensor& out, const Tensor& bcx, const Tensor& weight, const Tensor& bias,
                        const Tensor& cu_seqlens) {
  const char* operation = "short_conv_forward";
  check(operation, bcx, weight, bias);
  check_rows(operation, "out", out, {bcx.dim(0), weight.dim(0)}, bcx);
  expect_cu_seqlens(operation, cu_seqlens, bcx.dim(0));
  if (bcx.numel() == 0) return;
  if (bcx.dtype() == DType::f64) return reference::short_conv_forward(out, bcx, weight, bias, cu_seqlens);
  PagedSteps steps{};
  steps.bounds = cu_seqlens.data<int32_t>();
  steps.sequences = cu_seqlens.dim(0) - 1;
  forward({convolution_of(bcx, weight, bias), matrix_of(out), steps, {}, 0, bcx.dim(0)}, bcx.device());
}

void short_conv_backward(const Tensor& grad_bcx, const Tensor& grad_weight, const Tensor& grad_bias,
                         const Tensor& grad_out, const Tensor& bcx, const Tensor& weight, const Tensor& bias,
                         const Tensor& cu_seqlens) {
  const char* operation = "short_conv_backward";
  check(operation, bcx, weight, bias);
  check_rows(operation, "grad_bcx", grad_bcx, bcx.shape(), bcx);
  check_rows(operation, "grad_out", grad_out, {bcx.dim(0), weight.dim(0)}, bcx);
  check_gradient(operation, "grad_weight", grad_weight, weight);
  if (grad_bias.defined() && !bias.defined()) expect(operation, "bias", bias);
  check_gradient(operation, "grad_bias", grad_bias, bias);
  expect_cu_seqlens(operation, cu_seqlens, bcx.dim(0));
  if (bcx.numel() == 0) return;
  if (bcx.dtype() == DType::f64)
    return reference::short_conv_backward(grad_bcx, grad_weight, grad_bias, grad_out, bcx, weight, bias, cu_seqlens);
  const ShortConv convolution = convolution_of(bcx, weight, bias);
  const auto* const bounds = cu_seqlens.data<int32_t>();
  const int64_t sequences = cu_seqlens.dim(0) - 1;
  if (grad_weight.defined() || grad_bias.defined())
    weight_grad({convolution, grad_weight.defined() ? grad_weight.data<float>() : nullptr,
                 grad_bias.defined() ? grad_bias.data<float>() : nullptr, matrix_of(grad_out), bounds, sequences, 0,
                 weight.dim(0)},
                bcx.device(), bcx.dim(0));
  const ShortConvBackwardArgs args{convolution, matrix_of(grad_bcx), matrix_of(grad_out), bounds, sequences,
                                   0,           bcx.dim(0)};
  run_rows(
      args, bcx.device(), 2 * args.taps * args.columns,
      []<auto target>(const ShortConvBackwardArgs& rows) { short_conv_backward_rows<target>(rows); });
}

void short_conv_paged(const Tensor& out, const Tensor& pages, const Tensor& bcx, const Tensor& weight,
                      const Tensor& bias, const PagedBatch& batch) {
  const char* operation = "short_conv_paged";
  check(operation, bcx, weight, bias);
  expect(operation, "bcx", bcx).shape({batch.tokens(), 3 * weight.dim(0)});
  check_rows(operation, "out", out, {bcx.dim(0), weight.dim(0)}, bcx);
  const PagedBatch::Pages& made_for = batch.pages();
  expect(operation, "pages", pages).rank(3).dtype(bcx.dtype()).rows_contiguous().device(bcx.device());
  expect(operation, "pages", pages).shape({pages.dim(0), made_for.page_size, weight.dim(0)}).device(made_for.device);
  if (pages.dim(0) < made_for.count)
    throw ShapeError(std::string(operation) + ": pages expects the batch's " + std::to_string(made_for.count) +
                     ", found " + describe(pages));
  if (bcx.numel() == 0) return;
  if (bcx.dtype() == DType::f64) return reference::short_conv_paged(out, pages, bcx, weight, bias, batch);
  forward({convolution_of(bcx, weight, bias),
           matrix_of(out),
           device::steps_of(batch),
           {pages.raw(), pages.stride(0), pages.stride(1), made_for.page_size},
           0,
           bcx.dim(0)},
          bcx.device());
}

}  // namespace lathe::kernels
