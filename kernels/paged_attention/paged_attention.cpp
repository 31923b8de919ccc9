// The CPU body is attention's own (kernels/attention/tile.h): pages are only another way to find a key's row, so the
// bits are attention_forward's by construction.
#include "kernels/paged_attention/paged_attention.h"

#include <string>

#include "core/error.h"
#include "kernels/attention/checks.h"
#include "kernels/attention/run_tiles.h"
#include "kernels/checks/expect.h"
#include "kernels/paged_attention/reference.h"

namespace lathe::kernels {
namespace {

constexpr std::string_view operation = "paged_attention";

void check_pages(std::string_view name, const Tensor& k_pages, const Tensor& v_pages, DType dtype) {
  expect(name, "k_pages", k_pages).rank(4).dtype(dtype).rows_contiguous();
  expect(name, "v_pages", v_pages).shape(k_pages.shape()).dtype(dtype).rows_contiguous();
  expect_cpu(name, k_pages);
  expect_cpu(name, v_pages);
}

void check_index(std::string_view name, std::string_view argument, const Tensor& index, DType dtype) {
  expect(name, argument, index).rank(1).dtype(dtype).contiguous();
  expect_cpu(name, index);
}

std::string text(int64_t number) { return std::to_string(number); }

// Every page that a sequence's keys lie in exists, and its new tokens are among its keys.
void check_sequences(const Tensor& block_table, std::span<const int32_t> bounds, std::span<const int32_t> lengths,
                     int64_t pages, int64_t page_size) {
  for (size_t s = 0; s < lengths.size(); ++s) {
    const int64_t tokens = bounds[s + 1] - bounds[s], length = lengths[s];
    const int64_t most = block_table.dim(1) * page_size;
    if (length < tokens || length > most) {
      throw ShapeError(std::string(operation) + ": context_lens expects from " + text(tokens) +
                       " (the new tokens) to " + text(most) + " (block_table's pages) for sequence " + text(s) +
                       ", found " + text(length));
    }
    const int32_t* table = block_table.data<int32_t>() + static_cast<int64_t>(s) * block_table.stride(0);
    for (int64_t i = 0; i * page_size < length; ++i) {
      if (table[i] >= 0 && table[i] < pages) continue;
      throw ShapeError(std::string(operation) + ": block_table expects pages in [0, " + text(pages) + "), found " +
                       text(table[i]) + " as page " + text(i) + " of sequence " + text(s));
    }
  }
}

KeyRows paged_rows(const Tensor& k_pages, const Tensor& v_pages, const int32_t* pages) {
  KeyRows rows{};
  rows.k = k_pages.raw();
  rows.v = v_pages.raw();
  rows.k_page = k_pages.stride(0);
  rows.k_head = k_pages.stride(1);
  rows.k_token = k_pages.stride(2);
  rows.v_page = v_pages.stride(0);
  rows.v_head = v_pages.stride(1);
  rows.v_token = v_pages.stride(2);
  rows.page_size = k_pages.dim(2);
  rows.pages = pages;
  return rows;
}

}  // namespace

void paged_attention(const Tensor& out, const Tensor& q, const Tensor& k_pages, const Tensor& v_pages,
                     const Tensor& block_table, const Tensor& cu_seqlens, const Tensor& context_lens,
                     const AttentionParams& params) {
  expect(operation, "q", q).rank(3).dtype({DType::f32, DType::bf16, DType::f64}).rows_contiguous();
  expect_cpu(operation, q);
  check_pages(operation, k_pages, v_pages, q.dtype());
  expect_groups(operation, q.dim(1), k_pages.dim(1));
  const int64_t page_size = k_pages.dim(2);
  if (k_pages.dim(3) != q.dim(2))
    throw ShapeError("paged_attention: k_pages expects q's head size, found " + describe(k_pages) + " for q " +
                     describe(q));
  if (page_size == 0 || attention_chunk % page_size != 0)
    throw ShapeError("paged_attention: k_pages expects a page size that divides " + text(attention_chunk) + ", found " +
                     text(page_size));
  expect_heads(operation, "out", out, q.shape(), q.dtype());
  check_index(operation, "context_lens", context_lens, DType::i32);
  const int64_t sequences = context_lens.dim(0);
  expect(operation, "cu_seqlens", cu_seqlens).shape({sequences + 1});
  expect_cu_seqlens(operation, cu_seqlens, q.dim(0));
  expect(operation, "block_table", block_table).rank(2).dtype(DType::i32).rows_contiguous();
  expect(operation, "block_table", block_table).shape({sequences, block_table.dim(1)});
  expect_cpu(operation, block_table);
  expect_params(operation, params);
  const auto bounds = cu_seqlens.span<int32_t>(), lengths = context_lens.span<int32_t>();
  check_sequences(block_table, bounds, lengths, k_pages.dim(0), page_size);
  if (q.numel() == 0) return;
  if (q.dtype() == DType::f64) {
    return reference::paged_attention(out, q, k_pages, v_pages, block_table, cu_seqlens, context_lens, params);
  }

  const TileCall call = tile_call(out, {}, q, k_pages.dim(1), params);
  auto sequence = [&](int64_t s) -> TileSequence {
    const int64_t tokens = bounds[s + 1] - bounds[s];
    const int32_t* pages = block_table.data<int32_t>() + s * block_table.stride(0);
    return {paged_rows(k_pages, v_pages, pages), bounds[s], tokens, lengths[s] - tokens};
  };
  run_tiles(call, k_pages.dim(1), sequences, sequence);
}

}  // namespace lathe::kernels
