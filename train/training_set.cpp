#include "train/training_set.h"

#include <xxhash.h>

#include <algorithm>
#include <map>

#include "core/error.h"
#include "data/shards/shards.h"
#include "kernels/linear_cross_entropy/linear_cross_entropy.h"

namespace lathe::train {

TrainingSet TrainingSet::of_shards(std::shared_ptr<const data::Shards> shards) {
  TrainingSet set;
  set.shards_ = std::move(shards);
  return set;
}

int64_t TrainingSet::rows() const { return shards_ ? shards_->rows() : std::ssize(row_begin_); }
int64_t TrainingSet::sequences() const { return shards_ ? shards_->sequences() : std::ssize(begin_) - 1; }
int64_t TrainingSet::tokens() const { return shards_ ? shards_->manifest().totals.tokens : std::ssize(ids_); }

void TrainingSet::add_row(std::span<const int32_t> input_ids, std::span<const int32_t> labels) {
  row_begin_.push_back(sequences());
  add_to_row(input_ids, labels);
}

void TrainingSet::add_to_row(std::span<const int32_t> input_ids, std::span<const int32_t> labels) {
  if (shards_) throw Error("rows cannot be added to shards");
  if (input_ids.empty() || input_ids.size() != labels.size())
    throw ShapeError("a sequence needs as many labels as ids and at least one: found " +
                     std::to_string(input_ids.size()) + " ids and " + std::to_string(labels.size()) + " labels");
  ids_.insert(ids_.end(), input_ids.begin(), input_ids.end());
  labels_.insert(labels_.end(), labels.begin(), labels.end());
  begin_.push_back(tokens());
}

std::pair<int64_t, int64_t> TrainingSet::sequences_of_row(int64_t row) const {
  if (shards_) return shards_->sequences_of_row(row);
  const auto at = static_cast<size_t>(row);
  return {row_begin_.at(at), at + 1 < row_begin_.size() ? row_begin_[at + 1] : sequences()};
}

int64_t TrainingSet::sequence_tokens(int64_t sequence) const {
  if (shards_) return shards_->sequence_tokens(sequence);
  const auto at = static_cast<size_t>(sequence);
  return begin_[at + 1] - begin_[at];
}

void TrainingSet::append_sequence(int64_t sequence, std::vector<int32_t>& ids, std::vector<int32_t>& labels) const {
  if (shards_) {
    shards_->append_sequence(sequence, ids, labels);
    return;
  }
  const auto own_ids = this->ids(sequence), own_labels = this->labels(sequence);
  ids.insert(ids.end(), own_ids.begin(), own_ids.end());
  labels.insert(labels.end(), own_labels.begin(), own_labels.end());
}

std::span<const int32_t> TrainingSet::ids(int64_t sequence) const {
  if (shards_) throw Error("rows of shards have no place in memory");
  const auto at = static_cast<size_t>(sequence);
  return std::span(ids_).subspan(static_cast<size_t>(begin_[at]), static_cast<size_t>(begin_[at + 1] - begin_[at]));
}

std::span<const int32_t> TrainingSet::labels(int64_t sequence) const {
  if (shards_) throw Error("rows of shards have no place in memory");
  const auto at = static_cast<size_t>(sequence);
  return std::span(labels_).subspan(static_cast<size_t>(begin_[at]), static_cast<size_t>(begin_[at + 1] - begin_[at]));
}

int64_t TrainingSet::labelled_tokens() const {
  if (shards_) return shards_->manifest().totals.labelled_tokens;
  int64_t count = 0;
  for (int64_t s = 0; s < sequences(); ++s) {
    const auto shifted = labels(s).subspan(1);
    count += static_cast<int64_t>(shifted.size()) - std::count(shifted.begin(), shifted.end(), kernels::ignored_label);
  }
  return count;
}

int64_t TrainingSet::longest_sequence() const {
  if (shards_) return shards_->manifest().totals.longest_sequence;
  int64_t longest = 0;
  for (int64_t s = 0; s < sequences(); ++s) longest = std::max(longest, sequence_tokens(s));
  return longest;
}

int64_t TrainingSet::tokens_of_longest_rows(int64_t count) const {
  std::map<int64_t, int64_t> of_set;  // how many rows have so many tokens
  for (int64_t row = 0; !shards_ && row < rows(); ++row) {
    const auto [first, last] = sequences_of_row(row);
    ++of_set[begin_[static_cast<size_t>(last)] - begin_[static_cast<size_t>(first)]];
  }
  const auto& lengths = shards_ ? shards_->manifest().totals.row_lengths : of_set;
  int64_t sum = 0;
  for (auto length = lengths.rbegin(); length != lengths.rend() && count > 0; ++length) {
    const int64_t rows = std::min(count, length->second);
    sum += rows * length->first;
    count -= rows;
  }
  return sum;
}

uint64_t TrainingSet::fingerprint() const {
  if (shards_) return shards_->manifest().fingerprint();
  uint64_t hash = XXH64(ids_.data(), ids_.size() * sizeof(int32_t), 0);
  hash = XXH64(labels_.data(), labels_.size() * sizeof(int32_t), hash);
  hash = XXH64(begin_.data(), begin_.size() * sizeof(int64_t), hash);
  return XXH64(row_begin_.data(), row_begin_.size() * sizeof(int64_t), hash);
}

MicroBatch make_micro_batch(const TrainingSet& set, std::span<const int64_t> sequences, int32_t first_sample) {
  std::vector<int32_t> ids, labels, lengths;
  for (const int64_t sequence : sequences) {
    const auto first = static_cast<std::ptrdiff_t>(labels.size());
    set.append_sequence(sequence, ids, labels);
    labels.erase(labels.begin() + first);
    labels.push_back(kernels::ignored_label);
    lengths.push_back(static_cast<int32_t>(std::ssize(labels) - first));
  }
  return {nn::make_token_batch(ids, lengths, first_sample),
          Tensor::of<int32_t>(labels, {static_cast<int64_t>(labels.size())})};
}

std::vector<std::vector<int64_t>> cut_into_forwards(const TrainingSet& set, std::span<const int64_t> rows,
                                                    int64_t rows_per_forward, int64_t max_tokens) {
  std::vector<std::vector<int64_t>> forwards;
  int64_t rows_in_last = rows_per_forward, tokens_in_last = 0;
  for (const int64_t row : rows) {
    const bool new_batch = rows_in_last == rows_per_forward;
    if (new_batch) rows_in_last = 0;
    ++rows_in_last;
    const auto [first, last] = set.sequences_of_row(row);
    for (int64_t sequence = first; sequence < last; ++sequence) {
      const int64_t tokens = set.sequence_tokens(sequence);
      const bool full = max_tokens > 0 && tokens_in_last + tokens > max_tokens;
      if (forwards.empty() || full || (new_batch && sequence == first)) {
        forwards.emplace_back();
        tokens_in_last = 0;
      }
      forwards.back().push_back(sequence);
      tokens_in_last += tokens;
    }
  }
  return forwards;
}

}  // namespace lathe::train
