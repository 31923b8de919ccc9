#include "train/training_set.h"

#include <xxhash.h>

#include <algorithm>
#include <chrono>
#include <map>

#include "core/error.h"
#include "kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "train/packed_rows.h"
#include "train/row_stream.h"

namespace lathe::train {
namespace {

class Stopwatch {
 public:
  explicit Stopwatch(std::atomic<int64_t>& nanoseconds) : nanoseconds_(nanoseconds) {}
  ~Stopwatch() {
    nanoseconds_ +=
        std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now() - start_).count();
  }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;

 private:
  std::atomic<int64_t>& nanoseconds_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace

TrainingSet::TrainingSet() : held_(std::make_shared<HeldRows>()), parts_{{held_}} {}
TrainingSet::TrainingSet(std::shared_ptr<TokenRows> rows) : parts_{{std::move(rows)}} {}

TrainingSet TrainingSet::of_shards(std::shared_ptr<const data::Shards> shards, std::optional<int64_t> packed_to) {
  std::shared_ptr<TokenRows> rows = rows_of_shards(std::move(shards));
  if (packed_to) rows = packed_rows(std::move(rows), *packed_to);
  return TrainingSet(std::move(rows));
}

TrainingSet TrainingSet::of_stream(std::shared_ptr<RowStream> stream) {
  TrainingSet set{std::shared_ptr<TokenRows>(stream)};
  set.stream_ = std::move(stream);
  return set;
}

TrainingSet TrainingSet::mixed(const std::vector<WeightedSet>& sources) {
  TrainingSet set;
  set.held_.reset();
  set.parts_.clear();
  int64_t rows = 0, sequences = 0;
  for (const WeightedSet& source : sources) {
    if (source.weight.has_value() != sources[0].weight.has_value())
      throw ConfigError("dataset", "give each source a weight or none: " +
                                       (source.weight ? sources[0].name : source.name) + " has none");
    const int64_t weight = source.weight ? data::whole_weight(*source.weight, source.name) : 0;
    for (const Part& part : source.rows.parts_) {
      set.parts_.push_back({part.rows, source.name, weight, rows, sequences});
      rows += part.rows->rows();
      sequences += part.rows->sequences();
    }
  }
  return set;
}

void TrainingSet::add_row(std::span<const int32_t> input_ids, std::span<const int32_t> labels, std::string_view text) {
  if (!held_) throw Error("rows cannot be added to shards or to a mixture");
  held_->add_row(input_ids, labels, text);
}

void TrainingSet::add_to_row(std::span<const int32_t> input_ids, std::span<const int32_t> labels) {
  if (!held_) throw Error("rows cannot be added to shards or to a mixture");
  held_->add_to_row(input_ids, labels);
}

int64_t TrainingSet::rows() const { return parts_.back().first_row + parts_.back().rows->rows(); }
int64_t TrainingSet::sequences() const { return parts_.back().first_sequence + parts_.back().rows->sequences(); }

int64_t TrainingSet::tokens() const {
  int64_t tokens = 0;
  for (const Part& part : parts_) tokens += part.rows->tokens();
  return tokens;
}

int64_t TrainingSet::labelled_tokens() const {
  int64_t tokens = 0;
  for (const Part& part : parts_) tokens += part.rows->labelled_tokens();
  return tokens;
}

int64_t TrainingSet::longest_sequence() const {
  int64_t longest = 0;
  for (const Part& part : parts_) longest = std::max(longest, part.rows->longest_sequence());
  return longest;
}

const TrainingSet::Part& TrainingSet::part_of_sequence(int64_t sequence) const {
  const auto after = std::upper_bound(parts_.begin(), parts_.end(), sequence,
                                      [](int64_t at, const Part& part) { return at < part.first_sequence; });
  return *std::prev(after);
}

const TrainingSet::Part& TrainingSet::part_of_row(int64_t row) const {
  const auto after = std::upper_bound(parts_.begin(), parts_.end(), row,
                                      [](int64_t at, const Part& part) { return at < part.first_row; });
  return *std::prev(after);
}

std::pair<int64_t, int64_t> TrainingSet::sequences_of_row(int64_t row) const {
  const Stopwatch watch(*nanoseconds_reading_);
  const Part& part = part_of_row(row);
  const auto [first, last] = part.rows->sequences_of_row(row - part.first_row);
  return {part.first_sequence + first, part.first_sequence + last};
}

int64_t TrainingSet::sequence_tokens(int64_t sequence) const {
  const Part& part = part_of_sequence(sequence);
  return part.rows->sequence_tokens(sequence - part.first_sequence);
}

int64_t TrainingSet::row_tokens(int64_t row) const {
  const auto [first, last] = sequences_of_row(row);
  int64_t tokens = 0;
  for (int64_t sequence = first; sequence < last; ++sequence) tokens += sequence_tokens(sequence);
  return tokens;
}

void TrainingSet::append_sequence(int64_t sequence, std::vector<int32_t>& ids, std::vector<int32_t>& labels) const {
  const auto tokens = static_cast<size_t>(sequence_tokens(sequence));
  ids.resize(ids.size() + tokens);
  labels.resize(labels.size() + tokens);
  const auto length = static_cast<int32_t>(tokens);
  read_sequences({&sequence, 1}, {&length, 1}, std::span(ids).last(tokens), std::span(labels).last(tokens));
}

void TrainingSet::read_sequences(std::span<const int64_t> sequences, std::span<const int32_t> lengths,
                                 std::span<int32_t> ids, std::span<int32_t> labels) const {
  const Stopwatch watch(*nanoseconds_reading_);
  size_t first = 0;
  for (size_t i = 0; i < sequences.size(); ++i) {
    if (i + 1 < sequences.size()) {
      const Part& next = part_of_sequence(sequences[i + 1]);
      next.rows->prefetch_sequence(sequences[i + 1] - next.first_sequence);
    }
    const Part& part = part_of_sequence(sequences[i]);
    const auto tokens = static_cast<size_t>(lengths[i]);
    part.rows->read_sequence(sequences[i] - part.first_sequence, ids.subspan(first, tokens),
                             labels.subspan(first, tokens));
    first += tokens;
  }
}

std::string TrainingSet::row_text(int64_t row) const {
  const Stopwatch watch(*nanoseconds_reading_);
  const Part& part = part_of_row(row);
  return part.rows->row_text(row - part.first_row);
}

int64_t TrainingSet::tokens_of_longest_rows(int64_t count) const {
  std::map<int64_t, int64_t> lengths;
  for (const Part& part : parts_)
    for (const auto& [tokens, rows] : part.rows->row_lengths()) lengths[tokens] += rows;
  int64_t sum = 0;
  for (auto length = lengths.rbegin(); length != lengths.rend() && count > 0; ++length) {
    const int64_t rows = std::min(count, length->second);
    sum += rows * length->first;
    count -= rows;
  }
  return sum;
}

uint64_t TrainingSet::fingerprint() const {
  if (parts_.size() == 1) return parts_[0].rows->fingerprint();
  uint64_t hash = 0;
  for (const Part& part : parts_) {
    const uint64_t of_part[] = {part.rows->fingerprint(), static_cast<uint64_t>(part.weight)};
    hash = XXH64(of_part, sizeof of_part, hash);
  }
  return hash;
}

std::vector<data::MixtureSource> TrainingSet::sources() const {
  std::vector<data::MixtureSource> sources;
  for (const Part& part : parts_)
    sources.push_back({part.name, part.rows->rows(), part.weight > 0 ? part.weight : part.rows->rows()});
  return sources;
}

int64_t MicroBatch::labelled() const {
  const auto of_tokens = labels.span<int32_t>();
  return std::ssize(of_tokens) - std::count(of_tokens.begin(), of_tokens.end(), kernels::ignored_label);
}

MicroBatch make_micro_batch(const TrainingSet& set, std::span<const int64_t> sequences, int32_t first_sample) {
  std::vector<int32_t> lengths;
  for (const int64_t sequence : sequences) lengths.push_back(static_cast<int32_t>(set.sequence_tokens(sequence)));
  autograd::SequenceLayout layout = autograd::SequenceLayout::of(lengths, first_sample);
  const Tensor ids = Tensor::empty({layout.tokens()}, DType::i32), labels = Tensor::empty(ids.shape(), DType::i32);
  set.read_sequences(sequences, lengths, ids.span<int32_t>(), labels.span<int32_t>());
  size_t first = 0;
  for (const int32_t length : lengths) {
    const std::span<int32_t> own = labels.span<int32_t>().subspan(first, static_cast<size_t>(length));
    std::copy(own.begin() + 1, own.end(), own.begin());  // a label is what its token predicts
    own.back() = kernels::ignored_label;
    first += own.size();
  }
  return {{ids, std::move(layout)}, labels};
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
