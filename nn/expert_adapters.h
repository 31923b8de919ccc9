// Adapters of experts as PEFT has them (LoraConfig's target_parameters), and by linears as Lathe has them.
//
// transformers holds a layer's experts in two tensors, mlp.experts.gate_up_proj and down_proj (a Granite's lie in
// block_sparse_moe), and PEFT's adapter of one holds a pair of factors for all E of them: lora_A [E · r, in], expert
// after expert, and lora_B [out, r · E], of which column i · E + e is column i of expert e. Gate and up, whose rows lie
// in B one half after the other (in a gpt-oss in turn), have one A. Where both tensors are adapted, the keys of
// gate_up_proj have "base_layer" behind "experts".
#pragma once

#include <string>

#include "nn/config.h"
#include "nn/weights/peft.h"

namespace lathe::nn {

// What of a layer's experts the configuration adapts.
struct ExpertTargets {
  bool gate_up = false, down = false;
};
ExpertTargets expert_targets(const ModelConfig& model, const LoraConfig& config, int64_t layer);

// Each expert's linears ("model.layers.0.mlp.experts.3.gate_proj", up_proj and down_proj) in place of PEFT's keys; gate
// and up share their A. FormatError for factors that are missing or of another shape.
PeftAdapter split_expert_adapters(PeftAdapter adapter, const ModelConfig& model);
// The other way round, of factors in f32.
PeftAdapter stack_expert_adapters(PeftAdapter adapter, const ModelConfig& model);

// ConfigError for what does not go with adapters of experts (as in PEFT: dropout, DoRA; and other starts than those at
// random, and patterns), and for a name that is no parameter of the model's experts.
void check_expert_targets(const ModelConfig& model, const LoraConfig& config);

}  // namespace lathe::nn
