#include "kernels/rope_append/rope_append.h"

#include <string>

#include "core/error.h"
#include "kernels/checks/expect.h"
#include "kernels/copy/copy.h"
#include "kernels/paged_attention/checks.h"
#include "kernels/paged_attention/device.h"
#include "kernels/rms_norm/rms_norm.h"
#include "kernels/rope/rope.h"
#include "kernels/rope_append/device.h"

namespace lathe::kernels {
namespace {

constexpr const char* operation = "rope_append";

void check_norm(const char* argument, const Tensor& weight, const NewHeads& heads) {
  if (weight.defined())
    expect(operation, argument, weight)
        .shape({heads.q.dim(2)})
        .dtype(heads.q.dtype())
        .contiguous()
        .device(heads.q.device());
}

void check(const KvPages& pages, const NewHeads& heads, const PagedBatch& batch) {
  expect_pages(operation, pages);
  expect_batch(operation, batch, pages);
  const Device device = pages.k.device();
  expect(operation, "q", heads.q).rank(3).dtype({DType::f32, DType::bf16, DType::f16, DType::f64});
  const Shape q{batch.tokens(), heads.q.dim(1), pages.k.dim(3)}, kv{batch.tokens(), pages.k.dim(1), pages.k.dim(3)};
  expect(operation, "q", heads.q).shape(q).contiguous().device(device);
  expect(operation, "k", heads.k).shape(kv).dtype(heads.q.dtype()).contiguous().device(device);
  expect(operation, "v", heads.v).shape(kv).dtype(heads.q.dtype()).contiguous().device(device);
  check_norm("q_norm", heads.q_norm, heads);
  check_norm("k_norm", heads.k_norm, heads);
  if (!heads.cos_table.defined()) return;
  expect(operation, "cos_table", heads.cos_table).rank(2);
  if (2 * heads.cos_table.dim(1) > heads.q.dim(2))
    throw ShapeError(std::string(operation) + ": cos_table expects at most half the columns of a head of " +
                     std::to_string(heads.q.dim(2)) + ", found " + describe(heads.cos_table));
  if (heads.query_row != 0 && 2 * heads.query_row != heads.cos_table.dim(0))
    throw ShapeError(std::string(operation) + ": query_row expects half the rows of cos_table, found " +
                     std::to_string(heads.query_row) + " of " + describe(heads.cos_table));
}

void norm_and_turn(const Tensor& x, const Tensor& weight, const NewHeads& heads, int64_t first_row) {
  if (weight.defined()) {
    const Tensor rows = x.view({x.dim(0) * x.dim(1), x.dim(2)});
    rms_norm_forward(rows, {}, rows, weight, heads.eps);
  }
  if (!heads.cos_table.defined()) return;
  const Tensor turned = x.slice(2, 0, 2 * heads.cos_table.dim(1));
  const int64_t rows = heads.cos_table.dim(0) - heads.query_row;
  const auto rows_of = [&](const Tensor& table) { return table.slice(0, first_row, first_row + rows); };
  rope(turned, turned, heads.positions, rows_of(heads.cos_table), rows_of(heads.sin_table), RopeDirection::forward);
}

}  // namespace

void rope_append(const KvPages& pages, const NewHeads& heads, const PagedBatch& batch) {
  check(pages, heads, batch);
  if (heads.q.numel() == 0) return;
  if (device::appends_turned(pages, heads)) return device::rope_append(pages, heads, batch);
  norm_and_turn(heads.q, heads.q_norm, heads, heads.query_row);
  norm_and_turn(heads.k, heads.k_norm, heads, 0);
  kv_append(pages, heads.k, heads.v, batch);
}

}  // namespace lathe::kernels
