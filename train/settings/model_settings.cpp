#include "train/settings/model_settings.h"

namespace lathe::train {

Fields model_fields(ModelSettings& s) {
  return {
      {"model", Group::model_and_data, "Hugging Face directory or .gguf file", Shapes::run, &s.model},
      {"dtype", Group::memory, "auto (bfloat16 where the CPU multiplies it), float32, bfloat16 or float16",
       Shapes::result, &s.dtype},
      {"bf16", Group::memory, "true: dtype bfloat16, false: dtype float32", Shapes::run, &s.bf16},
      {"fp16", Group::memory, "true: dtype float16, with dynamic loss scaling as torch's GradScaler has it",
       Shapes::run, &s.fp16},
      {"load_in_4bit", Group::memory,
       "QLoRA: the layers' frozen linears as 4-bit codes (nf4), quantised while loading; products compute in dtype",
       Shapes::result, &s.load_in_4bit},
      {"load_in_8bit", Group::memory, "the same as 8-bit integers with a scale for each 64: near-lossless",
       Shapes::result, &s.load_in_8bit},
      {"bnb_4bit_quant_type", Group::memory, "nf4, the one type of 4 bits here", Shapes::result,
       &s.bnb_4bit_quant_type},
      {"bnb_4bit_use_double_quant", Group::memory,
       "of load_in_4bit: scales in 8 bits, 4.13 bits a weight on a device instead of 4.5 (on the CPU they stay f32)",
       Shapes::result, &s.bnb_4bit_use_double_quant},
  };
}

void check_model(const ModelSettings& s, Complaints& wrong) {
  wrong.require(!s.model.empty(), "model", "is missing: a Hugging Face directory or a .gguf file");
  wrong.require(one_of(s.dtype, {"auto", "float32", "f32", "bfloat16", "bf16", "float16", "f16"}), "dtype",
                "'" + s.dtype + "' is none of auto, float32, bfloat16, float16");
  wrong.require(!(s.bf16 && s.dtype != "auto"), "bf16", "give bf16 or dtype, not both");
  wrong.require(!(s.fp16 && s.bf16.value_or(false)), "fp16", "give fp16 or bf16, not both");
  wrong.require(!s.fp16 || one_of(s.dtype, {"auto", "float16", "f16"}), "fp16", "give fp16 or dtype, not both");
  wrong.require(!(s.load_in_4bit && s.load_in_8bit), "load_in_8bit", "give load_in_4bit or load_in_8bit, not both");
  wrong.require(s.bnb_4bit_quant_type == "nf4", "bnb_4bit_quant_type",
                "'" + s.bnb_4bit_quant_type + "' is not supported: nf4, which is also QLoRA's, is");
  wrong.require(s.load_in_4bit || !s.bnb_4bit_use_double_quant, "bnb_4bit_use_double_quant",
                "has no use without load_in_4bit");
}

}  // namespace lathe::train
