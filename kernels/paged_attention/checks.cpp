#include "kernels/paged_attention/checks.h"

#include <string>

#include "core/error.h"
#include "kernels/checks/expect.h"

namespace lathe::kernels {

namespace {

void expect_keys(std::string_view operation, const Tensor& k) {
  expect(operation, "pages.k", k)
      .rank(4)
      .dtype({DType::f32, DType::bf16, DType::f16, DType::i8, DType::f64})
      .rows_contiguous();
}

}  // namespace

void expect_copied_pages(std::string_view operation, const KvPages& pages) {
  pages.v.defined() ? expect_pages(operation, pages) : expect_keys(operation, pages.k);
}

void expect_pages(std::string_view operation, const KvPages& pages) {
  expect_keys(operation, pages.k);
  expect(operation, "pages.v", pages.v)
      .shape(pages.k.shape())
      .dtype(pages.k.dtype())
      .rows_contiguous()
      .device(pages.k.device());
  const int64_t page_size = pages.k.dim(2);
  if (page_size == 0 || attention_chunk % page_size != 0)
    throw ShapeError(std::string(operation) + ": pages.k expects a page size that divides " +
                     std::to_string(attention_chunk) + ", found " + std::to_string(page_size));
  if (pages.k.dtype() != DType::i8) return;
  const Shape rows{pages.k.dim(0), pages.k.dim(1), page_size};
  for (const auto& [name, scales] : {std::pair{"pages.k_scales", &pages.k_scales}, {"pages.v_scales", &pages.v_scales}})
    expect(operation, name, *scales)
        .shape(rows)
        .dtype({DType::f32, DType::f64})
        .rows_contiguous()
        .device(pages.k.device());
  if (pages.k_scales.stride(0) != pages.v_scales.stride(0) || pages.k_scales.stride(1) != pages.v_scales.stride(1))
    throw ShapeError(std::string(operation) + ": pages.v_scales expects the strides of pages.k_scales");
}

void expect_batch(std::string_view operation, const PagedBatch& batch, const KvPages& pages) {
  const PagedBatch::Pages& made_for = batch.pages();
  if (made_for.count <= pages.k.dim(0) && made_for.page_size == pages.k.dim(2) && made_for.device == pages.k.device())
    return;
  throw ShapeError(std::string(operation) + ": batch expects " + std::to_string(made_for.count) + " pages of " +
                   std::to_string(made_for.page_size) + " tokens on " + to_string(made_for.device) + ", found pages " +
                   describe(pages.k));
}

}  // namespace lathe::kernels
