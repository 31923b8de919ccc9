// trainer_state.json of a checkpoint: how far the run is, what the next line of metrics.jsonl will average, and what a
// resumed run must agree in.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "train/loss_scale.h"
#include "train/metrics_log.h"
#include "train/objective.h"
#include "train/settings/field.h"

namespace lathe::train {

// What a run must agree in with the checkpoint that it goes on from.
struct RunIdentity {
  NamedValues settings;  // result_settings()
  uint64_t model_fingerprint = 0, data_fingerprint = 0;
};

struct MetricSum {
  std::string name;
  double sum = 0;
  int64_t steps = 0;  // that had it
};

// The steps since the last line of metrics.jsonl, to be averaged.
struct LogWindow {
  int64_t steps = 0;
  double loss = 0;                 // sum
  std::vector<MetricSum> metrics;  // in the order in which they first came
  void add(const StepOutcome& outcome);
};

struct TrainerState {
  int64_t step = 0;  // optimiser steps done, skipped ones included
  int64_t num_tokens = 0;
  LogWindow window;
  std::optional<LossScale> loss_scale;  // there in float16
  std::optional<LogExtent> metrics;     // metrics.jsonl up to this step; older checkpoints do not say
};

// The file's text. `objective` is the name of the objective's state, empty where it keeps none.
std::string trainer_state_text(const TrainerState& state, std::string_view objective, const RunIdentity& identity);

struct SavedTrainerState {
  TrainerState state;
  std::string objective;
  RunIdentity identity;
};
// FormatError with the key that is wrong, or for the format of another version of this program.
SavedTrainerState read_trainer_state(const std::filesystem::path& path);

}  // namespace lathe::train
