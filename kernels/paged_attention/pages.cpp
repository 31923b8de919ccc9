// kv_append and kv_copy_pages: copies of rows and pages, the same on any element type.
#include <algorithm>
#include <cstring>
#include <string>

#include "core/error.h"
#include "core/thread_pool.h"
#include "kernels/checks/expect.h"
#include "kernels/paged_attention/paged_attention.h"

namespace lathe::kernels {
namespace {

// Bytes below which waking another thread costs more than it saves.
constexpr int64_t bytes_least = 1 << 17;

void check_pages(std::string_view operation, const Tensor& k_pages, const Tensor& v_pages) {
  expect(operation, "k_pages", k_pages).rank(4).dtype({DType::f32, DType::bf16, DType::f64}).rows_contiguous();
  expect(operation, "v_pages", v_pages).shape(k_pages.shape()).dtype(k_pages.dtype()).rows_contiguous();
  expect_cpu(operation, k_pages);
  expect_cpu(operation, v_pages);
}

template <class Index>
void check_range(std::string_view operation, std::string_view argument, const Tensor& index, int64_t end) {
  expect_cpu(operation, index);
  for (const Index value : index.span<Index>()) {
    if (value >= 0 && value < end) continue;
    throw ShapeError(std::string(operation) + ": " + std::string(argument) + " expects values in [0, " +
                     std::to_string(end) + "), found " + std::to_string(value));
  }
}

char* at(const Tensor& x, int64_t elements) { return static_cast<char*>(x.raw()) + elements * size_of(x.dtype()); }

// x [T, kv_heads, D] of one token into its slot.
void append_row(const Tensor& pages, const Tensor& x, int64_t token, int64_t slot) {
  const int64_t page = slot / pages.dim(2), offset = slot % pages.dim(2);
  const auto bytes = static_cast<size_t>(x.dim(2) * size_of(x.dtype()));
  for (int64_t head = 0; head < x.dim(1); ++head) {
    std::memcpy(at(pages, page * pages.stride(0) + head * pages.stride(1) + offset * pages.stride(2)),
                at(x, token * x.stride(0) + head * x.stride(1)), bytes);
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

}  // namespace

void kv_append(const Tensor& k_pages, const Tensor& v_pages, const Tensor& k, const Tensor& v, const Tensor& slots) {
  check_pages("kv_append", k_pages, v_pages);
  expect("kv_append", "k", k).rank(3);
  const Shape shape{k.dim(0), k_pages.dim(1), k_pages.dim(3)};
  expect("kv_append", "k", k).shape(shape).dtype(k_pages.dtype()).rows_contiguous();
  expect("kv_append", "v", v).shape(shape).dtype(k_pages.dtype()).rows_contiguous();
  expect_cpu("kv_append", k);
  expect_cpu("kv_append", v);
  expect("kv_append", "slots", slots).shape({k.dim(0)}).dtype(DType::i64).contiguous();
  check_range<int64_t>("kv_append", "slots", slots, k_pages.dim(0) * k_pages.dim(2));
  if (k.numel() == 0) return;

  const auto slot = slots.span<int64_t>();
  const int64_t token_bytes = 2 * k.dim(1) * k.dim(2) * size_of(k.dtype());
  parallel_for(k.dim(0), std::max<int64_t>(1, bytes_least / token_bytes), [&](int64_t begin, int64_t end) {
    for (int64_t token = begin; token < end; ++token) {
      append_row(k_pages, k, token, slot[token]);
      append_row(v_pages, v, token, slot[token]);
    }
  });
}

void kv_copy_pages(const Tensor& k_pages, const Tensor& v_pages, const Tensor& from, const Tensor& to) {
  check_pages("kv_copy_pages", k_pages, v_pages);
  expect("kv_copy_pages", "from", from).rank(1).dtype(DType::i32).contiguous();
  expect("kv_copy_pages", "to", to).shape(from.shape()).dtype(DType::i32).contiguous();
  check_range<int32_t>("kv_copy_pages", "from", from, k_pages.dim(0));
  check_range<int32_t>("kv_copy_pages", "to", to, k_pages.dim(0));
  const auto source = from.span<int32_t>(), target = to.span<int32_t>();
  for (size_t i = 0; i < source.size(); ++i) {  // in order: a page may be copied on
    if (source[i] == target[i]) continue;
    copy_page(k_pages, source[i], target[i]);
    copy_page(v_pages, source[i], target[i]);
  }
}

}  // namespace lathe::kernels
