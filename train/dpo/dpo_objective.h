// Direct preference optimisation (Rafailov et al. 2023) and its kin: the chosen completion of a row becomes likelier
// than the rejected one, measured against a reference, which is the model before training.
//
//   loss = mean over the rows of the WHOLE step of preference_loss (train/dpo/preference_loss.h)
//
// so that 8 rows × 1 and 1 row × 8 are the same step, bit for bit; what TRL takes over a micro-batch (the tokens of
// sft, the sorting of aot) is taken over the step here. Chosen and rejected of several rows run in one forward.
//
// Ranks share the rows of a step (rows_of_rank); what they know of their pairs goes to all of them, so that the loss,
// its metrics and what sorts are over the step on every rank.
//
// The reference is the model with the adapter off; where an adapter is trained further, a frozen copy of it; where
// whole weights are trained (every one, or an adapter's modules_to_save), the model as it is when the objective is
// made, which computes all rows then, or, with sync_ref_model, a second model that follows the first.
#pragma once

#include <array>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "nn/transformer.h"
#include "train/data_parallel.h"
#include "train/dpo/dpo_config.h"
#include "train/dpo/dpo_data.h"
#include "train/dpo/pair_forward.h"
#include "train/dpo/reference_logps.h"
#include "train/objective.h"
#include "train/reference_model.h"
#include "train/step_graphs.h"

namespace lathe::train {

class DpoObjective final : public Objective {
 public:
  // Everything must outlive the objective, and the model be as it is before training. `model_identity` tells the files
  // of reference log-probabilities of different models apart. A copy of config.adapter is added to the model as "ref".
  DpoObjective(nn::Transformer& model, const DpoConfig& config, const DpoData& data, uint64_t model_identity,
               DataParallel parallel = {});

  int64_t rows() const override { return data_.training.rows(); }
  std::vector<data::MixtureSource> sources() const override { return data_.training.sources(); }
  double seconds_reading() const override { return data_.training.seconds_reading(); }
  uint64_t fingerprint() const override { return data_.training.fingerprint(); }
  // Metrics by TRL's names: entropy, logits/…, mean_token_accuracy, rewards/…, logps/….
  QueuedStep accumulate(std::span<const int64_t> rows, int64_t step, double loss_scale) override;
  // The same of all of eval_dataset, with the prefix eval_; aot sorts over all of it.
  Metrics evaluate() override;

  // Null where no step is replayed.
  const StepGraphs* graphs() const { return graphs_.get(); }

  // With sync_ref_model the reference follows the model, and is what a checkpoint keeps; of a stream also the place.
  void after_update(int64_t steps_done) override;
  std::string_view state_name() const override;
  void save_state(const std::filesystem::path& folder) const override;
  void load_state(const std::filesystem::path& folder) override;
  void share_state() override;

 private:
  struct References {
    ReferenceLogps logps;
    std::filesystem::path file;
    bool from_file = false;
  };
  void know_all(References& references, const DataParallel& parallel);
  void keep(References& references);
  bool computes_references_when_asked() const;
  void prepare(References& references, const DataParallel& parallel);
  struct PairsOfStep;
  std::shared_ptr<PairsOfStep> pairs_of(std::span<const int64_t> rows, std::span<const int64_t> own) const;
  // What a step's rows go through, in this order.
  enum PassOfStep : size_t { reference_pass, comparing_pass, learning_pass, pass_count };
  using Passes = std::array<std::optional<PairPass>, pass_count>;
  PairPass comparing(const std::shared_ptr<PairsOfStep>& step, std::span<const int64_t> own,
                     PairForwardOptions options) const;
  PairPass learning(const std::shared_ptr<PairsOfStep>& step, std::span<const int64_t> rows,
                    const PairForwardOptions& options) const;
  void compare_over_processes(PairsOfStep& step) const;
  void queue_repeatable(const Passes& passes, int64_t step, double loss_scale);
  StepOutcome outcome_of(PairsOfStep& step) const;
  PairForwardOptions measuring_options() const;
  PairForwardOptions policy_options(int64_t step, double loss_scale) const;
  const nn::Transformer& reference() const { return reference_model_ ? reference_model_->model() : model_; }
  void forget_references();

  nn::Transformer& model_;
  const DpoConfig& config_;
  const DpoData& data_;
  DataParallel parallel_;
  std::vector<nn::Parameter> shared_;  // whose gradients ranks add up; empty where there is one
  PreferenceLossOptions loss_;
  uint64_t identity_;
  bool starts_as_reference_;
  int64_t rows_learnt_ = 0;                        // of a stream
  std::optional<std::string> policy_, reference_;  // adapters; not given: the model's only one, or none
  std::optional<ReferenceModel> reference_model_;  // with sync_ref_model
  References training_;
  std::optional<References> evaluation_;  // of the main process
  TrainedTables tables_;
  std::unique_ptr<StepGraphs> graphs_;
  std::array<HostPart<PairWork>, pass_count> work_in_graph_;
  std::vector<Tensor> losses_;  // of the step that was queued last by graphs_; a replay writes to the same memory
};

}  // namespace lathe::train
