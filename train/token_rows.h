// Where the token ids and labels of a training set lie: end to end in memory, or in shards on disk.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lathe::data {
class Shards;
}

namespace lathe::train {

// Rows and sequences are counted from 0, sequences through all rows.
class TokenRows {
 public:
  virtual ~TokenRows() = default;
  virtual int64_t rows() const = 0;
  virtual int64_t sequences() const = 0;
  virtual int64_t tokens() const = 0;
  virtual int64_t labelled_tokens() const = 0;  // after the shift
  virtual int64_t longest_sequence() const = 0;
  virtual std::map<int64_t, int64_t> row_lengths() const = 0;  // how many rows have so many tokens
  virtual std::pair<int64_t, int64_t> sequences_of_row(int64_t row) const = 0;
  virtual int64_t sequence_tokens(int64_t sequence) const = 0;
  // As many of both as the sequence has tokens. FormatError where a shard is not what was written.
  virtual void read_sequence(int64_t sequence, std::span<int32_t> ids, std::span<int32_t> labels) const = 0;
  // A hint that it will be read soon.
  virtual void prefetch_sequence(int64_t /*sequence*/) const {}
  // What a row carries beside its tokens, as text (data/rows/prompt_rows.h); empty where it carries nothing.
  virtual std::string row_text(int64_t row) const = 0;
  // xxHash-64 of every id, label, border and text; of every shard's header, which stands for all its bytes.
  virtual uint64_t fingerprint() const = 0;
};

class HeldRows final : public TokenRows {
 public:
  // As TrainingSet's.
  void add_row(std::span<const int32_t> input_ids, std::span<const int32_t> labels, std::string_view text);
  void add_to_row(std::span<const int32_t> input_ids, std::span<const int32_t> labels);

  int64_t rows() const override { return std::ssize(row_begin_); }
  int64_t sequences() const override { return std::ssize(begin_) - 1; }
  int64_t tokens() const override { return std::ssize(ids_); }
  int64_t labelled_tokens() const override;
  int64_t longest_sequence() const override;
  std::map<int64_t, int64_t> row_lengths() const override;
  std::pair<int64_t, int64_t> sequences_of_row(int64_t row) const override;
  int64_t sequence_tokens(int64_t sequence) const override;
  void read_sequence(int64_t sequence, std::span<int32_t> ids, std::span<int32_t> labels) const override;
  std::string row_text(int64_t row) const override;
  uint64_t fingerprint() const override;

 private:
  std::vector<int32_t> ids_, labels_;
  std::vector<int64_t> begin_ = {0};  // of each sequence in ids_, and the end
  std::vector<int64_t> row_begin_;    // the first sequence of each row
  std::string text_;                  // of all rows, end to end
  std::vector<int64_t> text_end_;     // of each row; empty while no row carries any
};

// What is said of all rows comes from the shards' manifest.
std::unique_ptr<TokenRows> rows_of_shards(std::shared_ptr<const data::Shards> shards);

}  // namespace lathe::train
