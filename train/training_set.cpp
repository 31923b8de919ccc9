#include "train/training_set.h"

#include <xxhash.h>

#include <algorithm>

#include "core/error.h"
#include "kernels/linear_cross_entropy/linear_cross_entropy.h"

namespace lathe::train {

void TrainingSet::add_row(std::span<const int32_t> input_ids, std::span<const int32_t> labels) {
  row_begin_.push_back(sequences());
  add_to_row(input_ids, labels);
}

void TrainingSet::add_to_row(std::span<const int32_t> input_ids, std::span<const int32_t> labels) {
  if (input_ids.empty() || input_ids.size() != labels.size())
    throw ShapeError("a sequence needs as many labels as ids and at least one: found " +
                     std::to_string(input_ids.size()) + " ids and " + std::to_string(labels.size()) + " labels");
  ids_.insert(ids_.end(), input_ids.begin(), input_ids.end());
  labels_.insert(labels_.end(), labels.begin(), labels.end());
  begin_.push_back(tokens());
}

std::pair<int64_t, int64_t> TrainingSet::sequences_of_row(int64_t row) const {
  const auto at = static_cast<size_t>(row);
  return {row_begin_.at(at), at + 1 < row_begin_.size() ? row_begin_[at + 1] : sequences()};
}

std::span<const int32_t> TrainingSet::ids(int64_t sequence) const {
  const auto at = static_cast<size_t>(sequence);
  return std::span(ids_).subspan(static_cast<size_t>(begin_[at]), static_cast<size_t>(begin_[at + 1] - begin_[at]));
}

std::span<const int32_t> TrainingSet::labels(int64_t sequence) const {
  const auto at = static_cast<size_t>(sequence);
  return std::span(labels_).subspan(static_cast<size_t>(begin_[at]), static_cast<size_t>(begin_[at + 1] - begin_[at]));
}

int64_t TrainingSet::labelled_tokens() const {
  int64_t count = 0;
  for (int64_t s = 0; s < sequences(); ++s) {
    const auto shifted = labels(s).subspan(1);
    count += static_cast<int64_t>(shifted.size()) - std::count(shifted.begin(), shifted.end(), kernels::ignored_label);
  }
  return count;
}

int64_t TrainingSet::longest_sequence() const {
  int64_t longest = 0;
  for (int64_t s = 0; s < sequences(); ++s) longest = std::max(longest, static_cast<int64_t>(ids(s).size()));
  return longest;
}

uint64_t TrainingSet::fingerprint() const {
  uint64_t hash = XXH64(ids_.data(), ids_.size() * sizeof(int32_t), 0);
  hash = XXH64(labels_.data(), labels_.size() * sizeof(int32_t), hash);
  hash = XXH64(begin_.data(), begin_.size() * sizeof(int64_t), hash);
  return XXH64(row_begin_.data(), row_begin_.size() * sizeof(int64_t), hash);
}

MicroBatch make_micro_batch(const TrainingSet& set, std::span<const int64_t> sequences, int32_t first_sample) {
  std::vector<int32_t> ids, labels, lengths;
  for (const int64_t sequence : sequences) {
    const auto own_ids = set.ids(sequence);
    const auto shifted = set.labels(sequence).subspan(1);
    ids.insert(ids.end(), own_ids.begin(), own_ids.end());
    labels.insert(labels.end(), shifted.begin(), shifted.end());
    labels.push_back(kernels::ignored_label);
    lengths.push_back(static_cast<int32_t>(own_ids.size()));
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
      const auto tokens = static_cast<int64_t>(set.ids(sequence).size());
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
