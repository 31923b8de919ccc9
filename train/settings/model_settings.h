// The model that a run trains, and what it computes in.
#pragma once

#include <optional>
#include <string>

#include "train/settings/field.h"

namespace lathe::train {

struct ModelSettings {
  std::string model;
  std::string dtype = "auto";  // auto | float32 | bfloat16
  std::optional<bool> bf16;    // TRL's name: true is bfloat16, false is float32

  // "auto" still to be resolved by the machine.
  std::string resolved_dtype() const { return bf16 ? (*bf16 ? "bfloat16" : "float32") : dtype; }
};

Fields model_fields(ModelSettings& settings);
void check_model(const ModelSettings& settings, Complaints& wrong);

}  // namespace lathe::train
