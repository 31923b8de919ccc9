#include "kernels/matmul/device.h"

#include "core/error.h"
#include "kernels/checks/expect.h"
#include "kernels/matmul/cuda.h"

namespace lathe::kernels::device {
namespace {

constexpr const char* operation = "linear_forward";

void check_operand(const char* argument, const Tensor& tensor, const Tensor& x, int64_t rows, int64_t columns) {
  expect(operation, argument, tensor).shape({rows, columns}).dtype(x.dtype()).rows_contiguous().device(x.device());
}

MatrixCuda matrix(const Tensor& tensor) {
  if (!tensor.defined()) return {};
  return {tensor.raw(), tensor.rank() == 2 ? tensor.stride(0) : 0, tensor.dtype()};
}

}  // namespace

void linear_forward(const Tensor& out, const Tensor& x, WeightView weight, const LinearTerms& terms) {
  expect(operation, "x", x).rank(2).dtype({DType::f32, DType::bf16}).rows_contiguous();
  if (weight.dense == nullptr)
    throw ShapeError("linear_forward: weight: expected a dense tensor on " + to_string(x.device()) +
                     ", found one packed for the cpu");
  const int64_t m = x.dim(0), n = weight.rows(), k = x.dim(1);
  check_operand("weight", *weight.dense, x, n, k);
  expect(operation, "out", out).shape({m, n}).dtype({x.dtype(), DType::f32}).rows_contiguous().device(x.device());
  LinearForwardCuda args{.m = m, .n = n, .k = k, .rank = 0};
  if (terms.lora_t.defined()) {
    args.rank = terms.lora_t.dim(1);
    check_operand("lora_t", terms.lora_t, x, m, args.rank);
    check_operand("lora_b", terms.lora_b, x, n, args.rank);
  }
  if (terms.bias.defined())
    expect(operation, "bias", terms.bias).shape({n}).dtype({x.dtype(), DType::f32}).contiguous().device(x.device());
  if (terms.residual.defined())
    expect(operation, "residual", terms.residual).shape({m, n}).dtype({x.dtype(), DType::f32}).rows_contiguous().device(x.device());
  if (m == 0 || n == 0) return;
  args.x = matrix(x);
  args.weight = matrix(*weight.dense);
  args.lora_t = matrix(terms.lora_t);
  args.lora_b = matrix(terms.lora_b);
  args.bias = matrix(terms.bias);
  args.residual = matrix(terms.residual);
  args.out = matrix(out);
  linear_forward_tiles(args, x.device());
}

}  // namespace lathe::kernels::device
