// What a method of training is to the Trainer: rows to draw from, and a loss whose gradients end up in the parameters.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/tensor.h"
#include "data/shuffle/mixture.h"

namespace lathe::train {

using Metrics = std::vector<std::pair<std::string, double>>;  // in the order in which they are written

struct StepOutcome {
  double loss = 0;
  int64_t tokens = 0;  // that went through the model
  Metrics metrics;     // averaged between two lines of metrics.jsonl, each over the steps that have it
};

// A step whose forwards and backwards are queued: a device may not have done them yet.
struct QueuedStep {
  std::function<StepOutcome()> outcome;  // waits for the device; to be called once
  std::vector<Tensor> losses;            // on the device: parts of the loss, which is finite where all of them are
};

// A part of the loss for QueuedStep::losses, which are f32.
inline float finite_mark(double part) { return std::isfinite(part) ? 0.0f : std::numeric_limits<float>::quiet_NaN(); }

// accumulate() could not be done for a reason that lies outside of the numbers, such as a program that has died. The
// parameters and the objective's state are as they were: the steps done can be saved, and gone on from.
class StepAbandoned : public Error {
  using Error::Error;
};

class Objective {
 public:
  virtual ~Objective() = default;
  virtual int64_t rows() const = 0;
  // How they are drawn, where they come from several sources.
  virtual std::vector<data::MixtureSource> sources() const { return {{"", rows(), std::max<int64_t>(1, rows())}}; }
  // Seconds so far that steps waited for rows to be read.
  virtual double seconds_reading() const { return 0; }
  // Identifies the rows: a resumed run must have the same.
  virtual uint64_t fingerprint() const = 0;
  // Optimiser steps that learn from the same rows before the next are drawn (GRPO's num_iterations): step s has the
  // rows of draw s / updates_per_rows(). At least 1, and the same throughout a run.
  virtual int64_t updates_per_rows() const { return 1; }
  // Rows of a draw. Not given: as many as a step has by the settings.
  virtual std::optional<int64_t> rows_per_draw() const { return {}; }
  // Queues forward and backward over the rows of one optimiser step. Gradients are added to the parameters' leaves and
  // are those of the outcome's loss times loss_scale (1 but for float16: train/loss_scale.h). `step` counts from 0 and
  // keys random numbers. The outcome does not depend on when it is asked for, as long as the objective lives and no
  // other step has been accumulated; of several processes all ask for it.
  virtual QueuedStep accumulate(std::span<const int64_t> rows, int64_t step, double loss_scale) = 0;
  // After the optimiser's step, before the step is evaluated or saved.
  virtual void after_update(int64_t /*steps_done*/) {}
  // Empty when there is nothing to evaluate; names have the prefix eval_.
  virtual Metrics evaluate() = 0;
  // Of several processes: whether each has a part in evaluate(), which all of them call then; else the main one alone.
  virtual bool evaluates_together() const { return false; }

  // State is what one step leaves for later ones beside the parameters: the rollouts that several updates share, a
  // moving average. Its name tells whose it is ("grpo"); an objective without a name has none, and its checkpoints have
  // no file of it.
  virtual std::string_view state_name() const { return {}; }
  // Writes one file or more into the folder, which is empty.
  virtual void save_state(const std::filesystem::path& /*folder*/) const {}
  // After it every later step gives the bits that it would have given without the stop. FormatError for files that do
  // not fit.
  virtual void load_state(const std::filesystem::path& /*folder*/) {}
  // Of several processes the main one alone has loaded the state; the others take it from there. All of them call it.
  virtual void share_state() {}
};

}  // namespace lathe::train
