// kv_append and kv_copy_pages, and their CPU bodies.
#include <algorithm>
#include <cstring>
#include <string>

#include "core/error.h"
#include "core/thread_pool.h"
#include "kernels/checks/expect.h"
#include "kernels/dispatch.h"
#include "kernels/paged_attention/checks.h"
#include "kernels/paged_attention/cpu.h"
#include "kernels/paged_attention/device.h"
#include "kernels/paged_attention/paged_attention.h"
#include "kernels/paged_attention/reference.h"

namespace lathe::kernels {
namespace {

// Bytes below which waking another thread costs more than it saves.
constexpr int64_t bytes_least = 1 << 17;

void check_page_index(std::string_view argument, const Tensor& index, int64_t end) {
  for (const int32_t value : index.span<int32_t>()) {
    if (value >= 0 && value < end) continue;
    throw ShapeError("kv_copy_pages: " + std::string(argument) + " expects values in [0, " + std::to_string(end) +
                     "), found " + std::to_string(value));
  }
}

char* at(const Tensor& x, int64_t elements) { return static_cast<char*>(x.raw()) + elements * size_of(x.dtype()); }

void append_token(const Tensor& pages, const Tensor& scales, const Tensor& x, int64_t token, const PagedBatch& batch) {
  const int64_t page = batch.page_of(token), offset = batch.offset_of(token);
  for (int64_t head = 0; head < x.dim(1); ++head) {
    KvAppendRowArgs row{.from = at(x, token * x.stride(0) + head * x.stride(1)),
                        .to = at(pages, page * pages.stride(0) + head * pages.stride(1) + offset * pages.stride(2)),
                        .scale = nullptr,
                        .dim = x.dim(2),
                        .from_dtype = x.dtype(),
                        .to_dtype = pages.dtype()};
    if (row.from_dtype == row.to_dtype) {
      std::memcpy(row.to, row.from, static_cast<size_t>(row.dim * size_of(x.dtype())));
      continue;
    }
    if (pages.dtype() == DType::i8)
      row.scale = scales.data<float>() + page * scales.stride(0) + head * scales.stride(1) + offset;
    with_isa([&]<Isa isa>() { kv_append_row<isa>(row); });
  }
}

void copy_page(const Tensor& pages, int64_t from, int64_t to) {
  const auto bytes = static_cast<size_t>(pages.dim(3) * size_of(pages.dtype()));
  for (int64_t head = 0; head < pages.dim(1); ++head) {
    for (int64_t offset = 0; offset < pages.dim(2); ++offset) {
      const int64_t row = head * pages.stride(1) + offset * pages.stride(2);
      std::memcpy(at(pages, to * pages.stride(0) + row), at(pages, from * pages.stride(0) + row), bytes);
    }
  }
}

void copy_scales(const Tensor& scales, int64_t from, int64_t to) {
  const auto bytes = static_cast<size_t>(scales.dim(2) * size_of(scales.dtype()));
  for (int64_t head = 0; head < scales.dim(1); ++head) {
    const int64_t row = head * scales.stride(1);
    std::memcpy(at(scales, to * scales.stride(0) + row), at(scales, from * scales.stride(0) + row), bytes);
  }
}

}  // namespace

void kv_append(const KvPages& pages, const Tensor& k, const Tensor& v, const PagedBatch& batch) {
  constexpr std::string_view operation = "kv_append";
  expect_pages(operation, pages);
  expect_batch(operation, batch, pages);
  const Shape shape{batch.tokens(), pages.k.dim(1), pages.k.dim(3)};
  expect(operation, "k", k).shape(shape).dtype({DType::f32, DType::bf16, DType::f16, DType::f64}).rows_contiguous();
  expect(operation, "k", k).device(pages.k.device());
  expect(operation, "v", v).shape(shape).dtype(k.dtype()).rows_contiguous().device(pages.k.device());
  if (k.numel() == 0) return;
  if (k.device().kind == DeviceKind::cpu && k.dtype() == DType::f64) return reference::kv_append(pages, k, v, batch);
  expect(operation, "k", k).dtype({DType::f32, DType::bf16, DType::f16});
  expect(operation, "pages.k", pages.k).dtype({DType::f32, DType::bf16, DType::f16, DType::i8});
  if (k.device().kind != DeviceKind::cpu) return device::kv_append(pages, k, v, batch);

  const int64_t token_bytes = 2 * k.dim(1) * k.dim(2) * size_of(k.dtype());
  parallel_for(k.dim(0), std::max<int64_t>(1, bytes_least / token_bytes), [&](int64_t begin, int64_t end) {
    for (int64_t token = begin; token < end; ++token) {
      append_token(pages.k, pages.k_scales, k, token, batch);
      append_token(pages.v, pages.v_scales, v, token, batch);
    }
  });
}

void kv_copy_pages(const KvPages& pages, const Tensor& from, const Tensor& to) {
  constexpr std::string_view operation = "kv_copy_pages";
  expect_copied_pages(operation, pages);
  expect(operation, "from", from).rank(1).dtype(DType::i32).contiguous().device({});
  expect(operation, "to", to).shape(from.shape()).dtype(DType::i32).contiguous().device({});
  check_page_index("from", from, pages.k.dim(0));
  check_page_index("to", to, pages.k.dim(0));
  if (pages.k.device().kind != DeviceKind::cpu) return device::kv_copy_pages(pages, from, to);
  const auto source = from.span<int32_t>(), target = to.span<int32_t>();
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == target[i]) continue;
    for (const Tensor& side : {pages.k, pages.v})
      if (side.defined()) copy_page(side, source[i], target[i]);
    if (pages.k.dtype() != DType::i8) continue;
    for (const Tensor& scales : {pages.k_scales, pages.v_scales}) copy_scales(scales, source[i], target[i]);
  }
}

}  // namespace lathe::kernels
