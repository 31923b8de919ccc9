#include "train/token_rows.h"

#include <xxhash.h>

#include <algorithm>

#include "core/error.h"
#include "data/shards/shards.h"
#include "kernels/linear_cross_entropy/linear_cross_entropy.h"

namespace lathe::train {
namespace {

class RowsOfShards final : public TokenRows {
 public:
  explicit RowsOfShards(std::shared_ptr<const data::Shards> shards)
      : shards_(std::move(shards)), totals_(shards_->manifest().totals) {}

  int64_t rows() const override { return shards_->rows(); }
  int64_t sequences() const override { return shards_->sequences(); }
  int64_t tokens() const override { return totals_.tokens; }
  int64_t labelled_tokens() const override { return totals_.labelled_tokens; }
  int64_t longest_sequence() const override { return totals_.longest_sequence; }
  std::map<int64_t, int64_t> row_lengths() const override { return totals_.row_lengths; }
  std::pair<int64_t, int64_t> sequences_of_row(int64_t row) const override { return shards_->sequences_of_row(row); }
  int64_t sequence_tokens(int64_t sequence) const override { return shards_->sequence_tokens(sequence); }
  void read_sequence(int64_t sequence, std::span<int32_t> ids, std::span<int32_t> labels) const override {
    shards_->read_sequences(sequence, sequence + 1, ids, labels);
  }
  void prefetch_sequence(int64_t sequence) const override { shards_->prefetch_sequences(sequence, sequence + 1); }
  std::string row_text(int64_t row) const override { return shards_->row_text(row); }
  uint64_t fingerprint() const override { return shards_->manifest().fingerprint(); }

 private:
  std::shared_ptr<const data::Shards> shards_;
  const data::ShardTotals& totals_;
};

}  // namespace

std::unique_ptr<TokenRows> rows_of_shards(std::shared_ptr<const data::Shards> shards) {
  return std::make_unique<RowsOfShards>(std::move(shards));
}

void HeldRows::add_row(std::span<const int32_t> input_ids, std::span<const int32_t> labels, std::string_view text) {
  row_begin_.push_back(sequences());
  add_to_row(input_ids, labels);
  if (text.empty() && text_end_.empty()) return;
  text_end_.resize(row_begin_.size() - 1, std::ssize(text_));
  text_ += text;
  text_end_.push_back(std::ssize(text_));
}

void HeldRows::add_to_row(std::span<const int32_t> input_ids, std::span<const int32_t> labels) {
  if (input_ids.empty() || input_ids.size() != labels.size())
    throw ShapeError("a sequence needs as many labels as ids and at least one: found " +
                     std::to_string(input_ids.size()) + " ids and " + std::to_string(labels.size()) + " labels");
  ids_.insert(ids_.end(), input_ids.begin(), input_ids.end());
  labels_.insert(labels_.end(), labels.begin(), labels.end());
  begin_.push_back(tokens());
}

std::pair<int64_t, int64_t> HeldRows::sequences_of_row(int64_t row) const {
  const auto at = static_cast<size_t>(row);
  return {row_begin_.at(at), at + 1 < row_begin_.size() ? row_begin_[at + 1] : sequences()};
}

int64_t HeldRows::sequence_tokens(int64_t sequence) const {
  const auto at = static_cast<size_t>(sequence);
  return begin_[at + 1] - begin_[at];
}

void HeldRows::read_sequence(int64_t sequence, std::span<int32_t> ids, std::span<int32_t> labels) const {
  const auto first = static_cast<size_t>(begin_[static_cast<size_t>(sequence)]);
  std::ranges::copy(std::span(ids_).subspan(first, ids.size()), ids.begin());
  std::ranges::copy(std::span(labels_).subspan(first, labels.size()), labels.begin());
}

int64_t HeldRows::labelled_tokens() const {
  int64_t count = std::ssize(labels_) - std::count(labels_.begin(), labels_.end(), kernels::ignored_label);
  for (int64_t s = 0; s < sequences(); ++s)  // the first token of a sequence is never predicted
    count -= labels_[static_cast<size_t>(begin_[static_cast<size_t>(s)])] != kernels::ignored_label;
  return count;
}

int64_t HeldRows::longest_sequence() const {
  int64_t longest = 0;
  for (int64_t s = 0; s < sequences(); ++s) longest = std::max(longest, sequence_tokens(s));
  return longest;
}

std::map<int64_t, int64_t> HeldRows::row_lengths() const {
  std::map<int64_t, int64_t> lengths;
  for (int64_t row = 0; row < rows(); ++row) {
    const auto [first, last] = sequences_of_row(row);
    ++lengths[begin_[static_cast<size_t>(last)] - begin_[static_cast<size_t>(first)]];
  }
  return lengths;
}

std::string HeldRows::row_text(int64_t row) const {
  const auto at = static_cast<size_t>(row);
  if (at >= text_end_.size()) return "";
  const auto begin = static_cast<size_t>(at == 0 ? 0 : text_end_[at - 1]);
  return text_.substr(begin, static_cast<size_t>(text_end_[at]) - begin);
}

uint64_t HeldRows::fingerprint() const {
  uint64_t hash = XXH64(ids_.data(), ids_.size() * sizeof(int32_t), 0);
  hash = XXH64(labels_.data(), labels_.size() * sizeof(int32_t), hash);
  hash = XXH64(begin_.data(), begin_.size() * sizeof(int64_t), hash);
  hash = XXH64(row_begin_.data(), row_begin_.size() * sizeof(int64_t), hash);
  if (text_end_.empty()) return hash;
  hash = XXH64(text_.data(), text_.size(), hash);
  return XXH64(text_end_.data(), text_end_.size() * sizeof(int64_t), hash);
}

}  // namespace lathe::train
