// What the Granites have in common: a factor on the embedding, on attention's scores, on
// what each block adds and on the logits.
#pragma once

#include <memory>

#include "nn/families/family.h"
#include "nn/families/hf_fields.h"

namespace lathe::nn {

ModelConfig granite_from_hf(const HfFields& config);
// Experts in all layers, whose weights are the softmax of the chosen logits alone.
void set_granite_experts(ModelConfig& model, int64_t experts, int64_t per_token);
// Of any of their architectures.
ModelConfig granite_from_gguf(const std::shared_ptr<const GgufFile>& file, const Family& family);

}  // namespace lathe::nn
