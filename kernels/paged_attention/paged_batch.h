// The new tokens of one step, and where their sequences' keys lie: checked once, and on a card uploaded once, for all
// layers.
#pragma once

#include <cstdint>
#include <span>

#include "core/tensor.h"

namespace lathe::kernels {

class PagedBatch {
 public:
  // The shape of the pages that the block table counts in, and the device they lie on.
  struct Pages {
    int64_t count, page_size;  // a page holds page_size tokens
    Device device = {};
  };
  // cu_seqlens i32 [S + 1] cuts the new tokens into sequences, which may be empty. context_lens i32 [S]: keys of each
  // sequence including its new tokens, which are the last ones. block_table i32 [S, max_pages]: the sequence's pages in
  // order; entries past its length are not read. All on the CPU. What does not fit throws ShapeError.
  // With `there`, i32 [number_count(…)] on the pages' device, nothing is uploaded: kernels read the numbers there,
  // where the caller copies numbers() before they run. So a captured graph finds those of every step in one place.
  // state_slots i32 [S], for a model whose layers keep a state of each sequence: which of the states are its own.
  PagedBatch(const Tensor& cu_seqlens, const Tensor& context_lens, const Tensor& block_table, Pages pages,
             const Tensor& there = {}, const Tensor& state_slots = {});
  static int64_t number_count(int64_t sequences, int64_t tokens, int64_t max_pages);
  std::span<const int32_t> numbers() const { return host_.span<int32_t>(); }

  int64_t sequences() const { return sequences_; }
  int64_t tokens() const { return tokens_; }
  int64_t longest() const { return longest_; }          // keys of the longest sequence that has new tokens
  int64_t most_tokens() const { return most_tokens_; }  // new tokens of one sequence
  const Pages& pages() const { return pages_; }

  std::span<const int32_t> bounds() const { return {at(0), static_cast<size_t>(sequences_ + 1)}; }
  int64_t context(int64_t sequence) const { return at(sequences_ + 1)[sequence]; }
  const int32_t* block_table(int64_t sequence) const { return at(tables_start()) + sequence * max_pages_; }
  bool has_states() const { return has_states_; }
  int64_t state_slot(int64_t sequence) const { return at(2 * sequences_ + 1)[sequence]; }
  // Whether a sequence's first token is among its new ones, so that its states begin here.
  bool begins(int64_t sequence) const { return context(sequence) == bounds()[sequence + 1] - bounds()[sequence]; }
  // Where a new token's key goes.
  int64_t page_of(int64_t token) const { return at(3 * sequences_ + 1)[token]; }
  int64_t offset_of(int64_t token) const { return at(3 * sequences_ + 1 + tokens_)[token]; }

  // The same numbers on the pages' device, for its kernels.
  struct OnDevice {
    const int32_t* bounds;        // [S + 1]
    const int32_t* contexts;      // [S]
    const int32_t* state_slots;   // [S]
    const int32_t* token_page;    // [T]
    const int32_t* token_offset;  // [T]
    const int32_t* block_table;   // [S, max_pages]
    int64_t max_pages;
  };
  OnDevice on_device() const;

 private:
  int64_t tables_start() const { return number_count(sequences_, tokens_, 0); }
  const int32_t* at(int64_t i) const { return host_.data<int32_t>() + i; }
  void check_sequences();
  void place_tokens();

  Pages pages_;
  int64_t sequences_ = 0, tokens_ = 0, max_pages_ = 0, longest_ = 0, most_tokens_ = 0;
  bool has_states_ = false;
  Tensor host_, device_;  // i32, the six arrays one after another, so that they go up in one copy
};

}  // namespace lathe::kernels
