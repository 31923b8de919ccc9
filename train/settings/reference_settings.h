// Whether the model that another is measured against follows it (TR-DPO, Gorbatovski et al. 2024).
#pragma once

#include "train/settings/field.h"

namespace lathe::train {

struct ReferenceSettings {
  bool sync_ref_model = false;
  double ref_model_mixup_alpha = 0.6;
  int64_t ref_model_sync_steps = 512;
};

Fields reference_fields(ReferenceSettings& settings);
void check_reference(const ReferenceSettings& settings, bool use_peft, Complaints& wrong);

}  // namespace lathe::train
