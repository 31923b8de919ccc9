#include "kernels/matmul/lora_shrink.h"

#include <algorithm>
#include <vector>

#include "core/thread_pool.h"
#include "kernels/checks/expect.h"
#include "kernels/matmul/cpu/bodies.h"
#include "kernels/matmul/dispatch.h"
#include "kernels/matmul/operands.h"

namespace lathe::kernels {
namespace {

// Rows of one adapter that a thread takes at a time: with more of them, a long prompt would be one thread's.
constexpr int64_t task_rows = 16;

ShrinkArgs shrink_args(const LoraShrink& call) {
  constexpr const char* operation = "lora_shrink";
  expect(operation, "x", call.x).rank(2).rows_contiguous().dtype({DType::f32, DType::bf16});
  expect_cpu(operation, call.x);
  expect(operation, "a", call.a.panels()).dtype(call.x.dtype());
  expect(operation, "x", call.x).shape({call.x.dim(0), call.a.columns()});
  expect(operation, "t", call.t).shape({call.x.dim(0), call.a.rows()}).rows_contiguous().dtype(call.x.dtype());
  ShrinkArgs args{.dtype = call.x.dtype(), .rows = call.x.dim(0), .k = call.a.columns(), .n = call.a.rows()};
  args.left = product_matrix(call.x), args.out = product_matrix(call.t);
  args.panels = static_cast<const uint32_t*>(call.a.panels().raw());
  args.scale = call.scale;
  return args;
}

ProductMatrix from_row(ProductMatrix matrix, int64_t row) {
  matrix.data = static_cast<char*>(matrix.data) + row * matrix.stride * size_of(matrix.dtype);
  return matrix;
}

}  // namespace

void lora_shrink(std::span<const LoraShrink> each) {
  std::vector<ShrinkArgs> tasks;
  tasks.reserve(each.size());
  for (const LoraShrink& call : each) {
    const ShrinkArgs all = shrink_args(call);
    for (int64_t row = 0; row < all.rows; row += task_rows) {
      ShrinkArgs& task = tasks.emplace_back(all);
      task.rows = std::min(task_rows, all.rows - row);
      task.left = from_row(all.left, row), task.out = from_row(all.out, row);
    }
  }
  parallel_for(static_cast<int64_t>(tasks.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const ShrinkArgs& task = tasks[static_cast<size_t>(i)];
      with_product_isa(task.dtype == DType::bf16, [&]<Isa isa>() { shrink_rows<isa>(task); });
    }
  });
}

}  // namespace lathe::kernels
