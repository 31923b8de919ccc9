#include "kernels/rope/rope.h"

#include <algorithm>
#include <string>

#include "core/error.h"
#include "core/thread_pool.h"
#include "kernels/checks/expect.h"
#include "kernels/rope/cpu.h"
#include "kernels/rope/reference.h"

namespace lathe::kernels {
namespace {

// Elements below which waking another thread costs more than it saves.
constexpr int64_t elements_least = 1 << 15;

void check_positions(const Tensor& positions, int64_t tokens, int64_t table_rows) {
  expect("rope", "positions", positions).shape({tokens}).dtype(DType::i32).contiguous();
  expect_cpu("rope", positions);
  const auto values = positions.span<int32_t>();
  for (size_t i = 0; i < values.size(); ++i) {
    if (values[i] < 0 || values[i] >= table_rows) {
      throw ShapeError("rope: positions expects values in [0, " + std::to_string(table_rows) +
                       "), the rows of cos_table, found " + std::to_string(values[i]) + " at token " +
                       std::to_string(i));
    }
  }
}

}  // namespace

void rope(const Tensor& out, const Tensor& x, const Tensor& positions, const Tensor& cos_table, const Tensor& sin_table,
          RopeDirection direction) {
  expect("rope", "x", x).rank(3).dtype({DType::f32, DType::bf16, DType::f64}).rows_contiguous();
  expect_cpu("rope", x);
  if (x.dim(2) % 2 != 0)
    throw ShapeError("rope: x expects an even last dimension (the halves rotate together), found " + describe(x));
  expect("rope", "out", out).shape(x.shape()).dtype(x.dtype()).rows_contiguous();
  expect_cpu("rope", out);
  const DType table_dtype = x.dtype() == DType::f64 ? DType::f64 : DType::f32;
  expect("rope", "cos_table", cos_table).rank(2).dtype(table_dtype).rows_contiguous();
  const Shape table_shape{cos_table.dim(0), x.dim(2) / 2};
  expect("rope", "cos_table", cos_table).shape(table_shape);
  expect("rope", "sin_table", sin_table).shape(table_shape).dtype(table_dtype).rows_contiguous();
  expect_cpu("rope", cos_table);
  expect_cpu("rope", sin_table);
  check_positions(positions, x.dim(0), cos_table.dim(0));
  if (x.numel() == 0) return;
  if (x.dtype() == DType::f64) return reference::rope(out, x, positions, cos_table, sin_table, direction);

  RopeArgs args{};
  args.out = out.raw();
  args.x = x.raw();
  args.positions = positions.data<int32_t>();
  args.cos_table = cos_table.data<float>();
  args.sin_table = sin_table.data<float>();
  args.cos_row = cos_table.stride(0);
  args.sin_row = sin_table.stride(0);
  args.out_token = out.stride(0);
  args.out_head = out.stride(1);
  args.x_token = x.stride(0);
  args.x_head = x.stride(1);
  args.heads = x.dim(1);
  args.half = x.dim(2) / 2;
  args.direction = direction == RopeDirection::forward ? 1.0f : -1.0f;
  args.is_bf16 = x.dtype() == DType::bf16;
  const int64_t grain = std::max<int64_t>(1, elements_least / (x.dim(1) * x.dim(2)));
  parallel_for(x.dim(0), grain, [&](int64_t begin, int64_t end) {
    RopeArgs part = args;
    part.begin = begin;
    part.end = end;
    cpu::rope(part);
  });
}

}  // namespace lathe::kernels
