// One step of AdamW, Lion or SGD over a model's parameters, with clipping by the norm over all of them. Masters and
// states are f32; AdamW's moments may be 8-bit codes with a scale for each block of 256, where the config asks for it
// and the tensor is large enough (kernels/adamw/adamw.h).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "kernels/adamw/adamw.h"
#include "nn/parameter.h"
#include "train/settings/training_settings.h"

namespace lathe::train {

class Optimizer {
 public:
  // The states start at zero. Gradients are made (as zeros) at once, so that memory is known before the first step.
  Optimizer(std::vector<nn::Parameter> parameters, const TrainingSettings& settings);

  std::span<const nn::Parameter> parameters() const { return parameters_; }
  std::span<nn::Parameter> parameters() { return parameters_; }
  void zero_gradients();
  // Queues what the step needs to know of all gradients, which are loss_scale times those of the loss
  // (kernels::clip_factor). Where their norm or an element of `watched` is not finite, the step will change nothing.
  void clip(double loss_scale, std::span<const Tensor> watched = {});
  // Queues step `step` (counted from 1) by that: gradients of a norm above max_grad_norm are scaled down to it, masters
  // updated and rounded into the leaves. As torch, the factor is min(1, max_grad_norm / (norm + 1e-6)).
  void step(int64_t step, double learning_rate);
  // Of the loss's gradients at the last clip(). Waits for the device.
  double gradient_norm() const;

  // "NAME.exp_avg" (AdamW, Lion) and "NAME.exp_avg_sq" (AdamW) for each parameter, torch's words, and where they are
  // codes also "NAME.exp_avg.absmax" and "NAME.exp_avg_sq.absmax", sharing the optimiser's memory.
  std::vector<std::pair<std::string, Tensor>> state() const;

 private:
  // Of the parameters that decay, or of those that do not.
  void step_those(bool decaying, const kernels::AdamWParams& params) const;

  std::vector<nn::Parameter> parameters_;
  OptimizerKind kind_;
  Tensor clip_;                                    // kernels::clip_factor's
  Tensor clip_read_;                               // its copy for the host, which is queued
  Tensor gradients_;                               // of all parameters, in one buffer: zeros are filled in at once
  std::vector<kernels::AdamW8bitStates> moments_;  // undefined what the kind has not; absmax where m and v are no codes
  double max_grad_norm_, beta1_, beta2_, eps_, weight_decay_;
};

}  // namespace lathe::train
