// A step that several ranks share: each computes the gradients of its part of the step's rows, they are added in
// ascending ranks, and every rank makes the same update.
//
// The number of ranks is a setting of the run, not of the machines that carry it out: either there is a process for
// each rank, or one process does the work of all of them, one after another, to the same bits.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/collectives/communicator.h"
#include "nn/parameter.h"

namespace lathe::train {

class DataParallel {
 public:
  // One rank.
  DataParallel() = default;
  // `processes` outlives this. ConfigError (world_size) where they are neither one nor as many as there are ranks.
  DataParallel(int64_t world_size, Communicator& processes);

  int64_t world_size() const { return world_size_; }
  // The ranks [first, last) that this process carries out.
  std::pair<int64_t, int64_t> ranks() const;
  // Whether other processes carry out some of the ranks.
  bool several() const { return processes_ != nullptr && processes_->size() > 1; }
  // Whether this process writes files and speaks to the user.
  bool is_main_process() const { return processes_ == nullptr || processes_->rank() == 0; }

  // These sum, or take from the main process, over the processes, in ascending ranks; the caller has summed over its
  // own ranks, ascending. Every process calls them alike; of one process they do nothing.
  void sum(std::span<double> values) const;
  void sum(const Tensor& tensor) const;  // f32 or f64, on any device
  // Each process has written its part of the values, and gets those of the others: [begin, end) is its own.
  void gather(std::span<double> values, size_t begin, size_t end) const;
  void from_main_process(const Tensor& tensor) const;
  int64_t from_main_process(int64_t value) const;
  std::string text_from_main_process(const std::string& text) const;
  // The text of each process, by rank.
  std::vector<std::string> texts_of_all(const std::string& text) const;
  // ConfigError (key) on the processes that have another value than the main one.
  void expect_same(const std::string& key, uint64_t value, const std::string& what) const;
  void wait_for_all() const;

 private:
  // Of that process, where there are several.
  int64_t number_from(int rank, int64_t value) const;
  std::string text_from(int rank, const std::string& text) const;

  int64_t world_size_ = 1;
  Communicator* processes_ = nullptr;
};

// The gradients of a step, which is over when the leaves hold the sum of all ranks.
class RankGradients {
 public:
  // Both outlive this. The leaves' gradients are zero.
  RankGradients(const DataParallel& parallel, std::span<nn::Parameter> parameters)
      : parallel_(parallel), parameters_(parameters) {}

  // A rank's gradients stand in the leaves.
  void end_rank();
  void end_step();

 private:
  const DataParallel& parallel_;
  std::span<nn::Parameter> parameters_;
  std::vector<Tensor> sums_;  // of the ranks so far, on the cpu, where this process carries out several
};

}  // namespace lathe::train
