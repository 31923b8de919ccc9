#include "train/dpo/pair_batch.h"

#include <algorithm>
#include <numeric>

#include "kernels/linear_cross_entropy/linear_cross_entropy.h"

namespace lathe::train {
namespace {

struct Sequence {
  std::vector<int32_t> ids, labels;  // a label is what its token predicts
};

Sequence sequence_of(const TrainingSet& pairs, int64_t number) {
  Sequence sequence;
  pairs.append_sequence(number, sequence.ids, sequence.labels);
  sequence.labels.erase(sequence.labels.begin());
  sequence.labels.push_back(kernels::ignored_label);
  return sequence;
}

// Not the whole of either: a sequence without rows would have no last token.
size_t shared_tokens(const Sequence& a, const Sequence& b) {
  size_t count = 0;
  while (count + 1 < std::min(a.ids.size(), b.ids.size()) && a.ids[count] == b.ids[count] &&
         a.labels[count] == kernels::ignored_label && b.labels[count] == kernels::ignored_label)
    ++count;
  return count;
}

int64_t shared_tokens(const TrainingSet& pairs, int64_t row) {
  const int64_t first = pairs.sequences_of_row(row).first;
  return static_cast<int64_t>(shared_tokens(sequence_of(pairs, first), sequence_of(pairs, first + 1)));
}

Tensor tensor(const std::vector<int32_t>& values) { return Tensor::of<int32_t>(values, {std::ssize(values)}); }

}  // namespace

PairBatch make_pair_batch(const TrainingSet& pairs, std::span<const int64_t> rows, int32_t first_sample,
                          PromptRows prompts) {
  std::vector<int32_t> ids, labels, positions, bounds{0}, samples;
  PairBatch made;
  const auto append = [&](const Sequence& sequence, size_t from) {
    ids.insert(ids.end(), sequence.ids.begin() + static_cast<std::ptrdiff_t>(from), sequence.ids.end());
    labels.insert(labels.end(), sequence.labels.begin() + static_cast<std::ptrdiff_t>(from), sequence.labels.end());
    for (size_t position = from; position < sequence.ids.size(); ++position)
      positions.push_back(static_cast<int32_t>(position));
    bounds.push_back(static_cast<int32_t>(ids.size()));
    samples.push_back(first_sample + static_cast<int32_t>(samples.size()));
    made.prefixes.lengths.push_back(static_cast<int32_t>(from));
  };
  for (const int64_t row : rows) {
    const int64_t first = pairs.sequences_of_row(row).first;
    const Sequence chosen = sequence_of(pairs, first), rejected = sequence_of(pairs, first + 1);
    append(chosen, 0);
    append(rejected, prompts == PromptRows::once ? shared_tokens(chosen, rejected) : 0);
  }
  made.prefixes.layout = {tensor(bounds), tensor(positions), tensor(samples)};
  made.batch = {{tensor(ids), made.prefixes.layout}, tensor(labels)};
  return made;
}

int64_t largest_pair_forward(const TrainingSet& pairs, const TrainingSettings& settings, PromptRows prompts) {
  constexpr int64_t rows_to_read = 65536;
  const int64_t rows_at_once = settings.per_device_train_batch_size, limit = settings.max_tokens_per_forward;
  int64_t batch = pairs.tokens_of_longest_rows(rows_at_once), longest = pairs.tokens_of_longest_rows(1);
  if (prompts == PromptRows::once && pairs.stream() == nullptr && pairs.rows() <= rows_to_read) {
    std::vector<int64_t> lengths;
    for (int64_t row = 0; row < pairs.rows(); ++row)
      lengths.push_back(pairs.row_tokens(row) - shared_tokens(pairs, row));
    std::sort(lengths.rbegin(), lengths.rend());
    lengths.resize(static_cast<size_t>(std::min(rows_at_once, pairs.rows())));
    batch = std::accumulate(lengths.begin(), lengths.end(), int64_t{0});
    longest = lengths.empty() ? 0 : lengths.front();
  }
  return limit == 0 ? batch : std::min(batch, std::max(limit, longest));
}

}  // namespace lathe::train
