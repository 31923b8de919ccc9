// The training loop, one step at a time: rows → objective → clip → AdamW → records. Methods differ in their Objective
// alone.
//
//   Trainer trainer(settings, objective, model, identity);
//   while (!trainer.done()) show(trainer.step());
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "train/checkpoint.h"
#include "train/data_parallel.h"
#include "train/learning_rate_schedule.h"
#include "train/metrics_log.h"
#include "train/objective.h"
#include "train/optimizer.h"
#include "train/row_order.h"
#include "train/run_lock.h"
#include "train/settings/training_settings.h"

namespace lathe::train {

struct StepRecord {
  int64_t step = 0;                                   // done so far, this one included
  double loss = 0, grad_norm = 0, learning_rate = 0;  // grad_norm before clipping
  int64_t tokens = 0;
  double seconds = 0;
  Metrics metrics;                             // the objective's, of this step
  Metrics evaluation;                          // empty where none was due
  std::optional<double> loss_scale;            // of this step, in float16
  bool skipped = false;                        // its gradients overflowed float16: nothing has changed but loss_scale
  std::optional<std::filesystem::path> saved;  // a checkpoint
};

class Trainer {
 public:
  // Makes output_dir, or goes on from a checkpoint in it. ConfigError where output_dir holds a run that is neither to
  // be resumed nor overwritten, or one that is still going on: the folder is this trainer's as long as it lives.
  // Of several processes the main one alone looks at output_dir and writes there; the others get what it goes on from.
  // Everything must outlive the trainer.
  Trainer(const TrainingSettings& settings, Objective& objective, nn::Transformer& model, RunIdentity identity,
          DataParallel parallel = {});

  int64_t total_steps() const { return order_.total_steps(); }
  int64_t steps_done() const { return state_.step; }
  bool done() const { return state_.step >= total_steps(); }
  // What a user should know about the start: the checkpoint gone on from; and what is not as it should be: checkpoints
  // passed over and why, lines that metrics.jsonl has lost.
  const std::vector<std::string>& notes() const { return notes_; }
  const std::vector<std::string>& warnings() const { return warnings_; }
  const Optimizer& optimizer() const { return optimizer_; }
  const nn::Transformer& model() const { return model_; }

  // One optimiser step with its records. NumericError when the loss or the gradient is not finite: the weights are
  // those of the step before, and no checkpoint is written. In float16 a step whose gradient is not finite is skipped
  // instead, while there is a loss scale to lower; it counts as a step, but the learning rate does not go on.
  StepRecord step();
  // A checkpoint of the steps done, wherever between the ones that the settings ask for; its path. Every process calls
  // it, and it is written when it returns.
  std::filesystem::path save();

 private:
  void start();
  void resume_from(const std::filesystem::path& checkpoint);
  void share_start();
  void check_finite(double value, const char* what) const;
  void check_gradient(StepRecord& record);
  void log(StepRecord& record);
  void evaluate(StepRecord& record);
  void open_logs();
  void write_checkpoint(const std::filesystem::path& path);

  const TrainingSettings& settings_;
  Objective& objective_;
  nn::Transformer& model_;
  RunIdentity identity_;
  DataParallel parallel_;
  std::filesystem::path output_dir_;
  std::optional<RunLock> lock_;
  RowOrder order_;
  LearningRateSchedule schedule_;
  Optimizer optimizer_;
  TrainerState state_;
  std::vector<std::string> notes_, warnings_;
  std::unique_ptr<MetricsLog> metrics_, timings_;
  double seconds_since_log_ = 0, seconds_reading_logged_ = 0;
  int64_t tokens_since_log_ = 0;
};

LearningRateSchedule make_schedule(const TrainingSettings& settings, double peak, int64_t total_steps);

}  // namespace lathe::train
