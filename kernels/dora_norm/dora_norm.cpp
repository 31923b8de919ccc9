#include "kernels/dora_norm/dora_norm.h"

#include "kernels/arguments/run_rows.h"
#include "kernels/checks/expect.h"
#include "kernels/dora_norm/bodies.h"
#include "kernels/dora_norm/reference.h"

namespace lathe::kernels {
namespace {

constexpr auto floating = {DType::f32, DType::bf16, DType::f16, DType::f64};

float* data_or_null(const Tensor& tensor) { return tensor.defined() ? tensor.data<float>() : nullptr; }

void check(const char* operation, const DoraNorm& call) {
  expect(operation, "b", call.b).rank(2).dtype(floating).contiguous();
  expect_body(operation, "b", call.b);
  const int64_t rows = call.b.dim(0), r = call.b.dim(1);
  const DType wide = call.b.dtype() == DType::f64 ? DType::f64 : DType::f32;
  const auto check_one = [&](const char* argument, const Tensor& tensor, const Shape& shape, DType dtype) {
    expect(operation, argument, tensor).shape(shape).dtype(dtype).contiguous().device(call.b.device());
  };
  check_one("squares", call.squares, {rows}, DType::f64);
  check_one("products", call.products, {r, rows}, wide);
  check_one("gram", call.gram, {r, r}, wide);
  if (call.norm.defined()) check_one("norm", call.norm, {rows}, wide);
  if (call.inverse.defined()) check_one("inverse", call.inverse, {rows}, wide);
}

}  // namespace

void row_squares(const Tensor& squares, const Tensor& rows) {
  const char* operation = "row_squares";
  expect(operation, "rows", rows).rank(2).dtype(floating).rows_contiguous();
  expect_body(operation, "rows", rows);
  expect(operation, "squares", squares).shape({rows.dim(0)}).dtype(DType::f64).contiguous().device(rows.device());
  if (rows.dim(0) == 0) return;
  if (rows.dtype() == DType::f64) return reference::row_squares(squares, rows);
  const RowSquaresArgs args{.dtype = rows.dtype(),
                            .squares = squares.data<double>(),
                            .rows = matrix_of(rows),
                            .columns = rows.dim(1),
                            .row_begin = 0,
                            .row_end = rows.dim(0)};
  run_rows(
      args, rows.device(), []<auto target>(const RowSquaresArgs& some) { row_squares_rows<target>(some); });
}

void dora_norm(const DoraNorm& call) {
  check("dora_norm", call);
  const int64_t rows = call.b.dim(0), r = call.b.dim(1);
  if (rows == 0) return;
  if (call.b.dtype() == DType::f64) return reference::dora_norm(call);
  const DoraNormArgs args{.dtype = call.b.dtype(),
                          .norm = data_or_null(call.norm),
                          .inverse = data_or_null(call.inverse),
                          .squares = call.squares.data<double>(),
                          .products = call.products.data<float>(),
                          .gram = call.gram.data<float>(),
                          .b = call.b.raw(),
                          .scaling = call.scaling,
                          .rows = rows,
                          .rank = r,
                          .row_begin = 0,
                          .row_end = rows};
  run_rows(
      args, call.b.device(), r * r, []<auto target>(const DoraNormArgs& some) { dora_norm_rows<target>(some); });
}

}  // namespace lathe::kernels
