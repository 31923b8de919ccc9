// What of the model is trained: an adapter, or every weight.
#pragma once

#include <cstdint>
#include <string>

#include "train/settings/field.h"

namespace lathe::train {

struct AdapterSettings {
  bool use_peft = true;
  std::string adapter;  // a PEFT directory to train further; empty: a new one
  int64_t lora_r = 16;
  double lora_alpha = 32;
  double lora_dropout = 0.05;
  std::string lora_target_modules = "all-linear";  // or names with commas between them, or a regular expression
  bool use_rslora = false;
};

Fields adapter_fields(AdapterSettings& settings);
void check_adapter(const AdapterSettings& settings, Complaints& wrong);

}  // namespace lathe::train
