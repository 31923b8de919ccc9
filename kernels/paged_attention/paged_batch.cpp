#include "kernels/paged_attention/paged_batch.h"

#include <algorithm>
#include <limits>
#include <string>

#include "core/error.h"
#include "kernels/checks/expect.h"
#include "kernels/cuda/runtime.h"

namespace lathe::kernels {
namespace {

constexpr std::string_view operation = "PagedBatch";

std::string text(int64_t number) { return std::to_string(number); }

}  // namespace

int64_t PagedBatch::number_count(int64_t sequences, int64_t tokens, int64_t max_pages) {
  return 3 * sequences + 1 + 2 * tokens + sequences * max_pages;
}

PagedBatch::PagedBatch(const Tensor& cu_seqlens, const Tensor& context_lens, const Tensor& block_table, Pages pages,
                       const Tensor& there, const Tensor& state_slots)
    : pages_(pages), has_states_(state_slots.defined()), device_(there) {
  expect(operation, "context_lens", context_lens).rank(1).dtype(DType::i32).contiguous().device({});
  sequences_ = context_lens.dim(0);
  expect(operation, "cu_seqlens", cu_seqlens).shape({sequences_ + 1}).dtype(DType::i32).contiguous().device({});
  tokens_ = cu_seqlens.data<int32_t>()[sequences_];
  expect_cu_seqlens(operation, cu_seqlens, tokens_);
  expect(operation, "block_table", block_table).rank(2).dtype(DType::i32).rows_contiguous().device({});
  max_pages_ = block_table.dim(1);
  expect(operation, "block_table", block_table).shape({sequences_, max_pages_});
  if (has_states_)
    expect(operation, "state_slots", state_slots).shape({sequences_}).dtype(DType::i32).contiguous().device({});
  if (pages.count > std::numeric_limits<int32_t>::max() || pages.page_size < 1)
    throw ShapeError("PagedBatch: expected at most 2^31 pages of at least one token, found " + text(pages.count) +
                     " of " + text(pages.page_size));

  host_ = Tensor::empty({number_count(sequences_, tokens_, max_pages_)}, DType::i32);
  int32_t* to = host_.data<int32_t>();
  to = std::copy_n(cu_seqlens.data<int32_t>(), sequences_ + 1, to);
  to = std::copy_n(context_lens.data<int32_t>(), sequences_, to);
  has_states_ ? std::copy_n(state_slots.data<int32_t>(), sequences_, to) : std::fill_n(to, sequences_, 0);
  to = host_.data<int32_t>() + tables_start();
  for (int64_t s = 0; s < sequences_; ++s)
    to = std::copy_n(block_table.data<int32_t>() + s * block_table.stride(0), max_pages_, to);
  check_sequences();
  place_tokens();

  if (there.defined()) {
    expect(operation, "there", there).shape(host_.shape()).dtype(DType::i32).contiguous().device(pages.device);
    return;
  }
  device_ = host_;
  if (pages.device == Device{}) return;
  device_ = Tensor::empty(host_.shape(), DType::i32, pages.device);
  copy_bytes(pages.device, device_.raw(), Device{}, host_.raw(), host_.nbytes());
}

// Every page that a sequence's keys lie in exists, and its new tokens are among its keys.
void PagedBatch::check_sequences() {
  for (int64_t s = 0; s < sequences_; ++s) {
    const int64_t tokens = bounds()[s + 1] - bounds()[s], length = context(s), most = max_pages_ * pages_.page_size;
    if (length < tokens || length > most)
      throw ShapeError("PagedBatch: context_lens expects from " + text(tokens) + " (the new tokens) to " + text(most) +
                       " (block_table's pages) for sequence " + text(s) + ", found " + text(length));
    for (int64_t i = 0; i * pages_.page_size < length; ++i) {
      const int32_t page = block_table(s)[i];
      if (page >= 0 && page < pages_.count) continue;
      throw ShapeError("PagedBatch: block_table expects pages in [0, " + text(pages_.count) + "), found " + text(page) +
                       " as page " + text(i) + " of sequence " + text(s));
    }
    most_tokens_ = std::max(most_tokens_, tokens);
    if (tokens > 0) longest_ = std::max(longest_, length);
  }
}

void PagedBatch::place_tokens() {
  int32_t* const page = host_.data<int32_t>() + 3 * sequences_ + 1;
  int32_t* const offset = page + tokens_;
  for (int64_t s = 0; s < sequences_; ++s) {
    const int64_t begin = bounds()[s], end = bounds()[s + 1];
    for (int64_t token = begin; token < end; ++token) {
      const int64_t position = context(s) - (end - token);
      page[token] = block_table(s)[position / pages_.page_size];
      offset[token] = static_cast<int32_t>(position % pages_.page_size);
    }
  }
}

PagedBatch::OnDevice PagedBatch::on_device() const {
  const int32_t* const start = device_.data<int32_t>();
  const int32_t* const contexts = start + sequences_ + 1;
  const int32_t* const token_page = contexts + 2 * sequences_;
  return {start, contexts, contexts + sequences_, token_page, token_page + tokens_, start + tables_start(), max_pages_};
}

}  // namespace lathe::kernels
