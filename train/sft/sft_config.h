// The settings of supervised fine-tuning: how rows become tokens and labels.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "train/settings/run_config.h"

namespace lathe::train {

struct SftSettings {
  std::string dataset_text_field = "text";
  int64_t max_length = 1024;
  std::string too_long = "truncate";  // or error
  bool packing = false;
  std::string packing_strategy = "bfd";
  std::optional<bool> completion_only_loss;  // left open: on where rows have a completion
  bool assistant_only_loss = false;
  bool streaming = false;  // rows are read in order as steps ask for them (row_stream.h)
};

struct SftConfig : RunConfig, DataSettings, SftSettings {
  static constexpr const char *method = "SFT", *command = "sft";
  void resolve() { shuffle = shuffle && !streaming; }
  double resolved_learning_rate() const { return learning_rate.value_or(use_peft ? 2e-4 : 2e-5); }
};

Fields fields_of(SftConfig& config);
void check(const SftConfig& config, Complaints& wrong);

}  // namespace lathe::train
