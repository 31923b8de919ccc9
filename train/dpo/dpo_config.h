// The settings of direct preference optimisation; names and defaults are those of TRL 1.16's DPOConfig.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "train/dpo/preference_loss.h"
#include "train/settings/reference_settings.h"
#include "train/settings/run_config.h"

namespace lathe::train {

struct DpoSettings {
  int64_t max_length = 1024;
  std::string truncation_mode = "keep_start";  // or keep_end
  std::string loss_type = "sigmoid";           // names with commas or spaces between them
  std::string loss_weights;                    // a number for each; empty: 1 each
  double beta = 0.1;
  double label_smoothing = 0.0;
  std::string f_divergence_type = "reverse_kl";
  double f_alpha_divergence_coef = 0.5;
  double discopop_tau = 0.05;
  std::optional<double> ld_alpha;
  bool use_weighting = false;
  bool precompute_ref_log_probs = false;
  bool disable_dropout = true;
  bool streaming = false;  // rows come once, in order
};

struct DpoConfig : RunConfig, DataSettings, DpoSettings, ReferenceSettings {
  static constexpr const char *method = "DPO", *command = "dpo";
  double resolved_learning_rate() const { return learning_rate.value_or(1e-6); }
  void resolve();  // lists in one spelling; a stream has its own order
};

Fields fields_of(DpoConfig& config);
void check(const DpoConfig& config, Complaints& wrong);

// Of a config that was checked.
PreferenceLossOptions preference_loss_options(const DpoConfig& config);

}  // namespace lathe::train
