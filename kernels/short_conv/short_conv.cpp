#include "kernels/short_conv/short_conv.h"

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

ShortConv convolution_of(const Tensor& bcx, const Tensor& weight, const Tensor& bias) {
  return {conv_taps_of(weight, bias), matrix_of(bcx)};
}

void forward(const ShortConvForwardArgs& args, Device device) {
  run_rows(
      args, device, args.taps * args.columns,
      []<auto target>(const ShortConvForwardArgs& rows) { short_conv_forward_rows<target>(rows); });
}

}  // namespace

void short_conv_forward(const Tensor& out, const Tensor& bcx, const Tensor& weight, const Tensor& bias,
                        const Tensor& cu_seqlens) {
  const char* operation = "short_conv_forward";
  expect_conv(operation, "bcx", bcx, 3, weight, bias);
  expect_conv_rows(operation, "out", out, weight.dim(0), bcx);
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
  expect_conv(operation, "bcx", bcx, 3, weight, bias);
  expect_conv_rows(operation, "grad_bcx", grad_bcx, bcx.dim(1), bcx);
  expect_conv_rows(operation, "grad_out", grad_out, weight.dim(0), bcx);
  expect_conv_gradient(operation, "grad_weight", grad_weight, weight);
  expect_conv_gradient(operation, "grad_bias", grad_bias, bias);
  expect_cu_seqlens(operation, cu_seqlens, bcx.dim(0));
  if (bcx.numel() == 0) return;
  if (bcx.dtype() == DType::f64)
    return reference::short_conv_backward(grad_bcx, grad_weight, grad_bias, grad_out, bcx, weight, bias, cu_seqlens);
  const ShortConv convolution = convolution_of(bcx, weight, bias);
  const auto* const bounds = cu_seqlens.data<int32_t>();
  const int64_t sequences = cu_seqlens.dim(0) - 1;
  if (grad_weight.defined() || grad_bias.defined()) {
    const ShortConvWeightGradArgs sums{convolution,
                                       grad_weight.defined() ? grad_weight.data<float>() : nullptr,
                                       grad_bias.defined() ? grad_bias.data<float>() : nullptr,
                                       matrix_of(grad_out),
                                       bounds,
                                       sequences,
                                       0,
                                       weight.dim(0)};
    run_columns(
        sums, bcx.device(), bcx.dim(0) * sums.taps,
        []<auto target>(const ShortConvWeightGradArgs& part) { short_conv_weight_grad_columns<target>(part); });
  }
  const ShortConvBackwardArgs args{convolution, matrix_of(grad_bcx), matrix_of(grad_out), bounds, sequences,
                                   0,           bcx.dim(0)};
  run_rows(
      args, bcx.device(), 2 * args.taps * args.columns,
      []<auto target>(const ShortConvBackwardArgs& rows) { short_conv_backward_rows<target>(rows); });
}

void short_conv_paged(const Tensor& out, const Tensor& pages, const Tensor& bcx, const Tensor& weight,
                      const Tensor& bias, const PagedBatch& batch) {
  const char* operation = "short_conv_paged";
  expect_conv(operation, "bcx", bcx, 3, weight, bias);
  expect(operation, "bcx", bcx).shape({batch.tokens(), 3 * weight.dim(0)});
  expect_conv_rows(operation, "out", out, weight.dim(0), bcx);
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
