#include "train/settings/model_settings.h"

namespace lathe::train {

Fields model_fields(ModelSettings& s) {
  return {
      {"model", Group::model_and_data, "Hugging Face directory or .gguf file", Shapes::run, &s.model},
      {"dtype", Group::memory, "auto (bfloat16 where the CPU multiplies it), float32 or bfloat16", Shapes::result,
       &s.dtype},
      {"bf16", Group::memory, "true: dtype bfloat16, false: dtype float32", Shapes::run, &s.bf16},
  };
}

void check_model(const ModelSettings& s, Complaints& wrong) {
  wrong.require(!s.model.empty(), "model", "is missing: a Hugging Face directory or a .gguf file");
  wrong.require(one_of(s.dtype, {"auto", "float32", "f32", "bfloat16", "bf16"}), "dtype",
                "'" + s.dtype + "' is none of auto, float32, bfloat16");
  wrong.require(!(s.bf16 && s.dtype != "auto"), "bf16", "give bf16 or dtype, not both");
}

}  // namespace lathe::train
