// The model that a run trains, and what it computes in.
#pragma once

#include <optional>
#include <string>

#include "nn/quantization.h"
#include "train/settings/field.h"

namespace lathe::train {

struct ModelSettings {
  std::string model;
  std::string dtype = "auto";  // auto | float32 | bfloat16 | float16
  std::optional<bool> bf16;    // TRL's name: true is bfloat16, false is float32
  bool fp16 = false;           // TRL's name, too: true is float16
  // How the layers' linears are held; products compute in the dtype, as with TRL's bnb_4bit_compute_dtype.
  bool load_in_4bit = false, load_in_8bit = false;
  std::string bnb_4bit_quant_type = "nf4";
  bool bnb_4bit_use_double_quant = false;

  // "auto" still to be resolved by the machine.
  std::string resolved_dtype() const {
    if (fp16) return "float16";
    return bf16 ? (*bf16 ? "bfloat16" : "float32") : dtype;
  }
  bool quantized() const { return load_in_4bit || load_in_8bit; }
  std::optional<nn::Quantization> quantization() const {
    return nn::quantization_of(load_in_4bit, load_in_8bit, bnb_4bit_use_double_quant);
  }
};

Fields model_fields(ModelSettings& settings);
void check_model(const ModelSettings& settings, Complaints& wrong);

}  // namespace lathe::train
