// What a method of training is to the Trainer: rows to draw from, and a loss whose gradients end up in the parameters.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace lathe::train {

using Metrics = std::vector<std::pair<std::string, double>>;  // in the order in which they are written

struct StepOutcome {
  double loss = 0;
  int64_t tokens = 0;  // that went through the model
  Metrics metrics;     // averaged over the steps between two lines of metrics.jsonl
};

class Objective {
 public:
  virtual ~Objective() = default;
  virtual int64_t rows() const = 0;
  // Identifies the rows: a resumed run must have the same.
  virtual uint64_t fingerprint() const = 0;
  // Forward and backward over the rows of one optimiser step. Gradients are added to the parameters' leaves and are those of
  // the returned loss. `step` counts from 0 and keys random numbers.
  virtual StepOutcome accumulate(std::span<const int64_t> rows, int64_t step) = 0;
  // Empty when there is nothing to evaluate; names have the prefix eval_.
  virtual Metrics evaluate() = 0;
};

}  // namespace lathe::train
