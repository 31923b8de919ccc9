#include "train/settings/adapter_settings.h"

#include <cmath>

namespace lathe::train {

Fields adapter_fields(AdapterSettings& s) {
  constexpr auto group = Group::adapter;
  constexpr auto result = Shapes::result;
  return {
      {"use_peft", group, "train an adapter; false trains every weight", result, &s.use_peft},
      {"adapter", group, "PEFT adapter directory to train further (its own rank and targets count)", Shapes::run,
       &s.adapter},
      {"lora_r", group, "rank", result, &s.lora_r},
      {"lora_alpha", group, "scale: alpha / r", result, &s.lora_alpha},
      {"lora_dropout", group, "share of the adapter's inputs dropped while training", result, &s.lora_dropout},
      {"lora_target_modules", group, "all-linear, names such as q_proj,v_proj, or a regular expression for whole names",
       result, &s.lora_target_modules},
      {"use_rslora", group, "scale: alpha / √r", result, &s.use_rslora},
  };
}

void check_adapter(const AdapterSettings& s, Complaints& wrong) {
  wrong.require(s.use_peft || s.adapter.empty(), "adapter", "has no use with use_peft false");
  wrong.require_positive("lora_r", s.lora_r);
  wrong.require(std::isfinite(s.lora_alpha), "lora_alpha", "must be a number");
  wrong.require_below_one("lora_dropout", s.lora_dropout);
  wrong.require(s.lora_target_modules.find_first_not_of(", \t\r\n") != std::string::npos, "lora_target_modules",
                "is empty");
}

}  // namespace lathe::train
