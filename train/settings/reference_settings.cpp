#include "train/settings/reference_settings.h"

namespace lathe::train {

Fields reference_fields(ReferenceSettings& s) {
  constexpr auto group = Group::optimisation;
  constexpr auto result = Shapes::result;
  return {
      {"sync_ref_model", group,
       "let the reference follow the model, with use_peft false: a second model in memory, with masters", result,
       &s.sync_ref_model},
      {"ref_model_mixup_alpha", group, "then reference = alpha x model + (1 - alpha) x reference", result,
       &s.ref_model_mixup_alpha},
      {"ref_model_sync_steps", group, "at every so many steps", result, &s.ref_model_sync_steps},
  };
}

void check_reference(const ReferenceSettings& s, bool use_peft, Complaints& wrong) {
  wrong.require(
      !s.sync_ref_model || !use_peft, "sync_ref_model",
      "goes with use_peft false: with an adapter the reference is the model without it, which stays as it is");
  wrong.require(s.ref_model_mixup_alpha >= 0 && s.ref_model_mixup_alpha <= 1, "ref_model_mixup_alpha",
                "must be from 0 to 1");
  wrong.require_positive("ref_model_sync_steps", s.ref_model_sync_steps);
}

}  // namespace lathe::train
