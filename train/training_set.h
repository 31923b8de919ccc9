// The tokens and labels of a run, from one source or several that are mixed by weight. A sequence is what attention
// stays inside; a row is what a batch counts: one sequence, or, after packing, several.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/tensor.h"
#include "data/shuffle/mixture.h"
#include "nn/token_batch.h"
#include "train/token_rows.h"

namespace lathe::train {

class RowStream;
struct WeightedSet;

class TrainingSet {
 public:
  // A set of rows in memory, which add_row() fills. Copies share the rows.
  TrainingSet();
  // The rows of these shards, which are read as they are asked for; add_row() and add_to_row() are not for such a set.
  // With `packed_to`, packed to so many tokens while they are drawn (train/packed_rows.h).
  static TrainingSet of_shards(std::shared_ptr<const data::Shards> shards, std::optional<int64_t> packed_to = {});

  // The rows of a stream, which can be asked for in order alone.
  static TrainingSet of_stream(std::shared_ptr<RowStream> stream);
  // Null where it is none.
  RowStream* stream() const { return stream_.get(); }

  // Rows are counted through all sources. Without weights, every row comes once in an epoch. ConfigError (dataset) for
  // weights that are not positive, or where only some sources have one.
  static TrainingSet mixed(const std::vector<WeightedSet>& sources);

  // A new row with one sequence. `labels` has an element for each id, not shifted: the id itself, or -100 where there
  // is nothing to learn. `text` is what the row carries beside its tokens. ShapeError when the sizes differ or the
  // sequence is empty.
  void add_row(std::span<const int32_t> input_ids, std::span<const int32_t> labels, std::string_view text = {});
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
  int64_t row_tokens(int64_t row) const;
  // The ids and labels of these sequences end to end; `lengths` are their sequence_tokens(). FormatError where a shard
  // is not what was written.
  void read_sequences(std::span<const int64_t> sequences, std::span<const int32_t> lengths, std::span<int32_t> ids,
                      std::span<int32_t> labels) const;
  // To both.
  void append_sequence(int64_t sequence, std::vector<int32_t>& ids, std::vector<int32_t>& labels) const;
  // What was given to add_row(), or was kept in a shard.
  std::string row_text(int64_t row) const;
  // The tokens of the `count` longest rows together.
  int64_t tokens_of_longest_rows(int64_t count) const;
  // Of every source's rows (TokenRows::fingerprint) and weight.
  uint64_t fingerprint() const;
  // Spent in the functions above that read rows, by all copies of the set.
  double seconds_reading() const { return static_cast<double>(nanoseconds_reading_->load()) * 1e-9; }
  // How rows are drawn: of one source or of several.
  std::vector<data::MixtureSource> sources() const;

 private:
  struct Part {
    std::shared_ptr<TokenRows> rows;
    std::string name;
    int64_t weight = 0;                         // 0: as many as it has rows
    int64_t first_row = 0, first_sequence = 0;  // of the set
  };
  explicit TrainingSet(std::shared_ptr<TokenRows> rows);
  const Part& part_of_row(int64_t row) const;
  const Part& part_of_sequence(int64_t sequence) const;

  std::shared_ptr<HeldRows> held_;     // of the only part, where it is in memory
  std::shared_ptr<RowStream> stream_;  // the only part, where it is one
  std::vector<Part> parts_;
  std::shared_ptr<std::atomic<int64_t>> nanoseconds_reading_ = std::make_shared<std::atomic<int64_t>>(0);
};

struct WeightedSet {
  std::string name;
  TrainingSet rows;
  std::optional<double> weight;  // its share of the rows drawn
};

// One forward: sequences without padding, and the labels shifted to where they are predicted.
struct MicroBatch {
  nn::TokenBatch tokens;
  Tensor labels;  // i32 [T], -100 at the last token of each sequence and where there is nothing to learn

  int64_t labelled() const;  // tokens with a label
};
MicroBatch make_micro_batch(const TrainingSet& set, std::span<const int64_t> sequences, int32_t first_sample);

// Cuts the sequences of these rows, in order, into forwards of at most `rows_per_forward` rows and max_tokens tokens
// (0: no limit; a longer sequence runs alone). The numbers of a step do not depend on the cuts.
std::vector<std::vector<int64_t>> cut_into_forwards(const TrainingSet& set, std::span<const int64_t> rows,
                                                    int64_t rows_per_forward, int64_t max_tokens);

}  // namespace lathe::train
