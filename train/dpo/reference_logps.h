// What the reference model says of the rows of a set: log-probabilities that do not change in a run, so that each row
// is computed once, and all of them can be kept in a file for the next call of the program.
#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "train/data_parallel.h"
#include "train/dpo/pair_forward.h"

namespace lathe::train {

struct ReferencePair {
  double chosen_logps = 0, rejected_logps = 0;
};

class ReferenceLogps {
 public:
  // All of them must outlive this.
  ReferenceLogps(const nn::Transformer& model, const TrainingSet& pairs, const TrainingSettings& settings,
                 std::optional<double> ld_alpha = {})
      : model_(model),
        pairs_(pairs),
        settings_(settings),
        ld_alpha_(ld_alpha),
        asked_(static_cast<size_t>(pairs.rows())),
        known_(std::make_shared<Values>(static_cast<size_t>(pairs.rows()))) {}

  // By row; what is not known is not there.
  using Values = std::vector<std::optional<ReferencePair>>;
  // For work of the host (kernels/cuda/host_work.h) that is queued after pass() or compute().
  std::shared_ptr<const Values> values() const { return known_; }

  // What computes these rows, where they are not known, with the model as it is then: to be queued (queue_pairs), and
  // from now on asked for. Not given where nothing is missing. `adapter` as in PairForwardOptions.
  std::optional<PairPass> pass(std::span<const int64_t> rows, const std::optional<std::string>& adapter);
  // The same, queued: there when the device has been waited for.
  void compute(std::span<const int64_t> rows, const std::optional<std::string>& adapter);
  // Of every row, waited for. Several processes do it together, each its part of the rows.
  void compute_all(const std::optional<std::string>& adapter, const DataParallel& parallel = {});
  // The model has changed.
  void forget() {
    std::fill(asked_.begin(), asked_.end(), false);
    known_ = std::make_shared<Values>(asked_.size());
  }
  int64_t rows() const { return std::ssize(*known_); }
  // Of a row that is known.
  const ReferencePair& operator[](int64_t row) const { return known_->at(static_cast<size_t>(row)).value(); }

  // The file of all rows, with the identity of who made it. load() leaves everything as it is, and answers false, where
  // there is no such file, or it was made by another model, adapter or dataset.
  void save(const std::filesystem::path& file, uint64_t identity) const;
  bool load(const std::filesystem::path& file, uint64_t identity);
  // Each process knows the rows [begin, end), and then all.
  void share(const DataParallel& parallel, size_t begin, size_t end);

 private:
  const nn::Transformer& model_;
  const TrainingSet& pairs_;
  const TrainingSettings& settings_;
  std::optional<double> ld_alpha_;
  std::vector<bool> asked_;        // by row: it is known, or queued
  std::shared_ptr<Values> known_;  // queued work writes it, too
};

}  // namespace lathe::train
