#include "kernels/softcap/softcap.h"

#include "core/error.h"
#include "kernels/arguments/run_rows.h"
#include "kernels/checks/expect.h"
#include "kernels/softcap/bodies.h"
#include "kernels/softcap/reference.h"

namespace lathe::kernels {

void softcap(const Tensor& out, const Tensor& x, float cap) {
  expect("softcap", "x", x).rank(2).dtype({DType::f32, DType::f64}).rows_contiguous();
  expect_body("softcap", "x", x);
  expect("softcap", "out", out).shape(x.shape()).dtype(x.dtype()).rows_contiguous().device(x.device());
  if (!(cap > 0)) throw ShapeError("softcap: expected a cap above 0, found " + std::to_string(cap));
  if (x.numel() == 0) return;
  if (x.dtype() == DType::f64) return reference::softcap(out, x, cap);
  const SoftcapArgs args{
      .out = matrix_of(out), .x = matrix_of(x), .cap = cap, .columns = x.dim(1), .row_begin = 0, .row_end = x.dim(0)};
  run_rows(
      args, x.device(), []<auto target>(const SoftcapArgs& rows) { softcap_rows<target>(rows); });
}

}  // namespace lathe::kernels
