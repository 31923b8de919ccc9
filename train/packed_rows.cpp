#include "train/packed_rows.h"

#include <xxhash.h>

#include <algorithm>
#include <mutex>

#include "core/error.h"
#include "core/thread_pool.h"
#include "data/packing/packing.h"

namespace lathe::train {
namespace {

constexpr int64_t window_rows = 1000;
// A step asks for a row several times, and its rows lie anywhere: some 12 KB each.
constexpr size_t windows_held = 256;

class PackedRows final : public TokenRows {
 public:
  PackedRows(std::shared_ptr<const TokenRows> rows, int64_t max_length)
      : rows_(std::move(rows)), max_length_(max_length) {
    const int64_t windows = (rows_->rows() + window_rows - 1) / window_rows;
    row_begin_.resize(static_cast<size_t>(windows) + 1);
    std::mutex counting;
    parallel_for(windows, 16, [&](int64_t begin, int64_t end) {
      std::map<int64_t, int64_t> lengths;
      for (int64_t w = begin; w < end; ++w) {
        const std::vector<int64_t> tokens = lengths_of(w);
        const auto packed = data::pack_rows(tokens, max_length_, data::PackingStrategy::bfd);
        row_begin_[static_cast<size_t>(w) + 1] = std::ssize(packed);
        for (const auto& pieces : packed) {
          int64_t sum = 0;
          for (const data::PackedPiece& piece : pieces) sum += piece.end - piece.begin;
          ++lengths[sum];
        }
      }
      const std::lock_guard lock(counting);
      for (const auto& [length, count] : lengths) row_lengths_[length] += count;
    });
    for (size_t w = 1; w < row_begin_.size(); ++w) row_begin_[w] += row_begin_[w - 1];
  }

  int64_t rows() const override { return row_begin_.back(); }
  int64_t sequences() const override { return rows_->sequences(); }
  int64_t tokens() const override { return rows_->tokens(); }
  int64_t labelled_tokens() const override { return rows_->labelled_tokens(); }
  int64_t longest_sequence() const override { return rows_->longest_sequence(); }
  std::map<int64_t, int64_t> row_lengths() const override { return row_lengths_; }

  std::pair<int64_t, int64_t> sequences_of_row(int64_t row) const override {
    const auto after = std::upper_bound(row_begin_.begin(), row_begin_.end(), row);
    const int64_t w = after - row_begin_.begin() - 1;
    const std::shared_ptr<const Window> packed = window(w);
    const auto at = static_cast<size_t>(row - row_begin_[static_cast<size_t>(w)]);
    return {w * window_rows + packed->row_begin[at], w * window_rows + packed->row_begin[at + 1]};
  }
  int64_t sequence_tokens(int64_t sequence) const override { return rows_->sequence_tokens(unpacked(sequence)); }
  void read_sequence(int64_t sequence, std::span<int32_t> ids, std::span<int32_t> labels) const override {
    rows_->read_sequence(unpacked(sequence), ids, labels);
  }
  void prefetch_sequence(int64_t sequence) const override { rows_->prefetch_sequence(unpacked(sequence)); }
  std::string row_text(int64_t) const override { return ""; }
  uint64_t fingerprint() const override {
    const uint64_t of_all[] = {rows_->fingerprint(), static_cast<uint64_t>(max_length_)};
    return XXH64(of_all, sizeof of_all, 0);
  }

 private:
  // A window has as many sequences packed as not, so that they are counted alike: [1000 w, 1000 (w + 1)).
  struct Window {
    int64_t index = 0;
    std::vector<int32_t> order;      // the rows of the window, as they lie in its packed rows
    std::vector<int32_t> row_begin;  // of each packed row in `order`, and the end
  };

  std::vector<int64_t> lengths_of(int64_t w) const {
    const int64_t first = w * window_rows, last = std::min(rows_->rows(), first + window_rows);
    std::vector<int64_t> lengths;
    for (int64_t row = first; row < last; ++row) lengths.push_back(rows_->sequence_tokens(row));
    return lengths;
  }

  std::shared_ptr<const Window> window(int64_t w) const {
    {
      const std::lock_guard lock(holding_);
      const auto found = std::find_if(held_.begin(), held_.end(), [&](const auto& held) { return held->index == w; });
      if (found != held_.end()) {
        std::rotate(held_.begin(), found, found + 1);  // the last used comes first
        return held_.front();
      }
    }
    auto made = std::make_shared<Window>();
    made->index = w;
    made->row_begin = {0};
    for (const auto& pieces : data::pack_rows(lengths_of(w), max_length_, data::PackingStrategy::bfd)) {
      for (const data::PackedPiece& piece : pieces) made->order.push_back(static_cast<int32_t>(piece.row));
      made->row_begin.push_back(static_cast<int32_t>(made->order.size()));
    }
    const std::lock_guard lock(holding_);
    if (held_.size() == windows_held) held_.pop_back();
    held_.insert(held_.begin(), made);
    return made;
  }

  int64_t unpacked(int64_t sequence) const {
    const int64_t w = sequence / window_rows;
    return w * window_rows + window(w)->order[static_cast<size_t>(sequence % window_rows)];
  }

  std::shared_ptr<const TokenRows> rows_;
  int64_t max_length_;
  std::vector<int64_t> row_begin_;  // of each window in the packed rows, and the end
  std::map<int64_t, int64_t> row_lengths_;
  mutable std::mutex holding_;
  mutable std::vector<std::shared_ptr<const Window>> held_;
};

}  // namespace

std::unique_ptr<TokenRows> packed_rows(std::shared_ptr<const TokenRows> rows, int64_t max_length) {
  if (rows->sequences() != rows->rows() || rows->longest_sequence() > max_length)
    throw Error("rows to be packed are one sequence each, of at most " + std::to_string(max_length) + " tokens");
  return std::make_unique<PackedRows>(std::move(rows), max_length);
}

}  // namespace lathe::train
