// Supervised fine-tuning: cross entropy of the labelled tokens.
//
//   loss = Σ over the shifted valid labels of the WHOLE step of −log p(label) / their number
//
// never a mean of micro-batch means, so that 8 rows × 1 and 1 row × 8 are the same step, bit for bit. Ranks share the
// rows of a step (rows_of_rank), and its number of labels is that of all.
#pragma once

#include <memory>

#include "nn/transformer.h"
#include "train/data_parallel.h"
#include "train/objective.h"
#include "train/settings/training_settings.h"
#include "train/step_graphs.h"
#include "train/training_set.h"

namespace lathe::train {

class SftObjective final : public Objective {
 public:
  // Both sets and the model must outlive the objective; `evaluation` may be null.
  SftObjective(nn::Transformer& model, const TrainingSet& training, const TrainingSet* evaluation,
               const TrainingSettings& settings, DataParallel parallel = {});
  ~SftObjective() override;
  int64_t rows() const override { return training_.rows(); }
  std::vector<data::MixtureSource> sources() const override { return training_.sources(); }
  std::string_view state_name() const override { return training_.stream() ? "row_stream" : ""; }
  void save_state(const std::filesystem::path& folder) const override;
  void load_state(const std::filesystem::path& folder) override;
  void share_state() override;
  double seconds_reading() const override { return training_.seconds_reading(); }
  uint64_t fingerprint() const override { return training_.fingerprint(); }
  // Metrics: entropy (nats) and mean_token_accuracy over the labelled tokens of the step. NumericError where there is
  // none: whoever makes the set leaves out rows with nothing to learn.
  QueuedStep accumulate(std::span<const int64_t> rows, int64_t step, double loss_scale) override;
  Metrics evaluate() override;
  // Null where no step is replayed.
  const StepGraphs* graphs() const { return graphs_.get(); }

 private:
  struct TokenSums;
  struct Measured;
  struct Forward;
  struct Scale;
  std::vector<std::vector<MicroBatch>> read(std::span<const int64_t> rows) const;
  void accumulate_rank(std::span<const MicroBatch> forwards, const Scale& scale, StoredNumbers* stored);
  void accumulate_forward(const MicroBatch& batch, const Scale& scale, StoredNumbers* stored);
  void accumulate_repeatable(std::span<const MicroBatch> forwards, const Scale& scale);
  StepOutcome outcome_of(std::span<const std::vector<Measured>> ranks) const;

  int64_t rows_learnt_ = 0;  // of a stream
  const nn::Transformer& model_;
  DataParallel parallel_;
  std::vector<nn::Parameter> shared_;  // whose gradients ranks add up; empty where there is one
  const TrainingSet& training_;
  const TrainingSet* evaluation_;
  int64_t rows_per_forward_, max_tokens_per_forward_;
  bool checkpoint_layers_;
  uint64_t seed_;
  TrainedTables tables_;
  std::unique_ptr<StepGraphs> graphs_;
  std::vector<Forward> queued_;  // the forwards of a rank that were queued last; a replay writes to the same memory
};

}  // namespace lathe::train
