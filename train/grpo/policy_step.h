// The completions that one optimiser step learns from, with what the model says of their tokens: measured by the ranks
// that share them, known to all.
#pragma once

#include <span>
#include <vector>

#include "train/data_parallel.h"
#include "train/grpo/generation_batch.h"
#include "train/grpo/grpo_config.h"
#include "train/grpo/policy_forward.h"
#include "train/grpo/policy_loss.h"
#include "train/training_set.h"

namespace lathe::train {

class PolicyStep {
 public:
  // The step's part of the batch, whose prompts are rows of `prompts`. Nothing of them is needed later: work of the
  // host in a device's queue may own this (kernels/cuda/host_work.h).
  PolicyStep(const GrpoConfig& config, const GenerationBatch& batch, std::span<const ScoredRollout> completions,
             const TrainingSet& prompts);
  PolicyStep(const PolicyStep&) = delete;
  PolicyStep& operator=(const PolicyStep&) = delete;

  // Those that are not masked: what is numbered below.
  std::span<const CompletedPrompt> sequences() const { return sequences_; }
  // Of the ranks [ranks.first, ranks.second): the sequences [first, second).
  std::pair<size_t, size_t> part_of(const DataParallel& parallel, std::pair<int64_t, int64_t> ranks) const;

  void set(size_t sequence, const CompletionTokens& tokens);
  // This process has set what its ranks have, and gets the others. Every process calls it.
  void share(const DataParallel& parallel);
  // Of top_entropy_quantile; every sequence is set.
  void set_entropy_floor();

  // Of one sequence that is set: what the loss of the whole step says of it, which follows from the step's size. Gives
  // its part of the loss.
  double gradients_of(size_t sequence, CompletionGradients gradients) const;
  // Of all of them, in their order, which depends neither on cuts nor on ranks. Every sequence is set.
  StepOutcome outcome(bool is_first_of_draw) const;

 private:
  bool is_masked(const ScoredRollout& completion) const;
  int64_t tokens_of(std::span<const ScoredRollout> completions) const;
  std::span<const double> logprobs(size_t sequence) const;
  std::span<const double> entropies(size_t sequence) const;
  void add_to(PolicyLoss& loss, size_t sequence, CompletionGradients gradients) const;

  const GrpoConfig config_;
  const std::vector<ScoredRollout> completions_;
  PolicyBatchSize size_;
  std::vector<const ScoredRollout*> learnt_;
  std::vector<std::vector<int32_t>> prompts_;
  std::vector<CompletedPrompt> sequences_;
  std::vector<size_t> bounds_ = {0};  // of each sequence's numbers, and their end
  std::vector<double> numbers_;       // a sequence's log-probabilities, then its entropies
};

}  // namespace lathe::train
