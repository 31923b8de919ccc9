// The tokens and labels of a run: end to end in two arrays, or in shards on disk. A sequence is what attention stays
// inside; a row is what a batch counts: one sequence, or, after packing, several.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/tensor.h"
#include "nn/token_batch.h"

namespace lathe::data {
class Shards;
}

namespace lathe::train {

class TrainingSet {
 public:
  // The rows of these shards, which are read as they are asked for; add_row() and add_to_row() are not for such a set.
  // What is said of all rows comes from the shards' manifest.
  static TrainingSet of_shards(std::shared_ptr<const data::Shards> shards);

  // A new row with one sequence. `labels` has an element for each id, not shifted: the id itself, or -100 where there
  // is nothing to learn. ShapeError when the sizes differ or the sequence is empty.
  void add_row(std::span<const int32_t> input_ids, std::span<const int32_t> labels);
  // One more sequence in the last row (packing).
  void add_to_row(std::span<const int32_t> input_ids, std::span<const int32_t> labels);

  int64_t rows() const;
  int64_t sequences() const;
  int64_t tokens() const;
  int64_t labelled_tokens() const;  // after the shift: what the loss sums over
  int64_t longest_sequence() const;
  // The sequences [first, last) of a row.
  std::pair<int64_t, int64_t> sequences_of_row(int64_t row) const;
  int64_t sequence_tokens(int64_t sequence) const;
  // Appends the sequence's ids and labels to both. FormatError where a shard is not what was written.
  void append_sequence(int64_t sequence, std::vector<int32_t>& ids, std::vector<int32_t>& labels) const;
  // The same where they lie, of a set that is not in shards.
  std::span<const int32_t> ids(int64_t sequence) const;
  std::span<const int32_t> labels(int64_t sequence) const;
  // The tokens of the `count` longest rows together.
  int64_t tokens_of_longest_rows(int64_t count) const;
  // xxHash-64 of every id, label and border; of every shard's header, which stands for all its bytes.
  uint64_t fingerprint() const;

 private:
  std::shared_ptr<const data::Shards> shards_;  // null where the arrays below hold the rows
  std::vector<int32_t> ids_, labels_;
  std::vector<int64_t> begin_ = {0};  // of each sequence in ids_, and the end
  std::vector<int64_t> row_begin_;    // the first sequence of each row
};

// One forward: sequences without padding, and the labels shifted to where they are predicted.
struct MicroBatch {
  nn::TokenBatch tokens;
  Tensor labels;  // i32 [T], -100 at the last token of each sequence and where there is nothing to learn
};
MicroBatch make_micro_batch(const TrainingSet& set, std::span<const int64_t> sequences, int32_t first_sample);

// Cuts the sequences of these rows, in order, into forwards of at most `rows_per_forward` rows and max_tokens tokens
// (0: no limit; a longer sequence runs alone). The numbers of a step do not depend on the cuts.
std::vector<std::vector<int64_t>> cut_into_forwards(const TrainingSet& set, std::span<const int64_t> rows,
                                                    int64_t rows_per_forward, int64_t max_tokens);

}  // namespace lathe::train
