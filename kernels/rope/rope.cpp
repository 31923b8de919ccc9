#include "kernels/rope/rope.h"

#include <algorithm>

#include "core/error.h"
#include "core/thread_pool.h"
#include "kernels/checks/expect.h"
#include "kernels/dispatch.h"
#include "kernels/rope/bodies.h"
#include "kernels/rope/reference.h"

namespace lathe::kernels {
namespace {

// Elements below which waking another thread costs more than it saves.
constexpr int64_t elements_least = 1 << 15;

void run(const RopeArgs& args, Device device) {
  if (device.kind != DeviceKind::cpu) return with_device(device, [&]<DeviceKind kind>() { rope_tokens<kind>(args); });
  const int64_t grain = std::max<int64_t>(1, elements_least / (args.heads * args.half * 2));
  parallel_for(args.end, grain, [&](int64_t begin, int64_t end) {
    RopeArgs part = args;
    part.begin = begin;
    part.end = end;
    with_isa([&]<Isa isa>() { rope_tokens<isa>(part); });
  });
}

}  // namespace

void rope(const Tensor& out, const Tensor& x, const Tensor& positions, const Tensor& cos_table, const Tensor& sin_table,
          RopeDirection direction) {
  expect("rope", "x", x).rank(3).dtype({DType::f32, DType::bf16, DType::f16, DType::f64}).rows_contiguous();
  expect_body("rope", "x", x);
  if (x.dim(2) % 2 != 0)
    throw ShapeError("rope: x expects an even last dimension (the halves rotate together), found " + describe(x));
  expect("rope", "out", out).shape(x.shape()).dtype(x.dtype()).rows_contiguous().device(x.device());
  const DType table_dtype = x.dtype() == DType::f64 ? DType::f64 : DType::f32;
  expect("rope", "cos_table", cos_table).rank(2).dtype(table_dtype).rows_contiguous().device(x.device());
  const Shape table_shape{cos_table.dim(0), x.dim(2) / 2};
  expect("rope", "cos_table", cos_table).shape(table_shape);
  expect("rope", "sin_table", sin_table).shape(table_shape).dtype(table_dtype).rows_contiguous().device(x.device());
  const Indices indices =
      expect_indices("rope", "positions", positions, x.dim(0), "cos_table", cos_table.dim(0), x.device());
  if (x.numel() == 0) return;
  if (x.dtype() == DType::f64) return reference::rope(out, x, positions, cos_table, sin_table, direction);
  run({.dtype = x.dtype(),
       .out = out.raw(),
       .x = x.raw(),
       .out_token = out.stride(0),
       .out_head = out.stride(1),
       .x_token = x.stride(0),
       .x_head = x.stride(1),
       .positions = indices,
       .cos_table = cos_table.data<float>(),
       .sin_table = sin_table.data<float>(),
       .cos_row = cos_table.stride(0),
       .sin_row = sin_table.stride(0),
       .table_rows = cos_table.dim(0),
       .heads = x.dim(1),
       .half = x.dim(2) / 2,
       .direction = direction == RopeDirection::forward ? 1.0f : -1.0f,
       .begin = 0,
       .end = x.dim(0)},
      x.device());
}

}  // namespace lathe::kernels
