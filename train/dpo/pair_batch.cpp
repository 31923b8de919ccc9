#include "train/dpo/pair_batch.h"

#include <algorithm>

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

}  // namespace lathe::train
