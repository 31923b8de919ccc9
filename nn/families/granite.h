// What Granite and Granite's mixtures of experts have in common: a factor on the embedding, on attention's scores, on
// what each block adds and on the logits.
#pragma once

#include <memory>

#include "nn/families/family.h"
#include "nn/families/hf_fields.h"

namespace lathe::nn {

ModelConfig granite_from_hf(const HfFields& config);
// Of either architecture.
ModelConfig granite_from_gguf(const std::shared_ptr<const GgufFile>& file, const Family& family);

}  // namespace lathe::nn
