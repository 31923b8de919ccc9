// Embeddings from a decoder: the last hidden states, pooled.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "nn/transformer.h"

namespace lathe::http {

enum class Pooling { mean, last };

// The hidden states after the last norm of the tokens (at least one, within the model's context), their mean or the
// last one's, scaled to length 1; summed in f64 in the order of the tokens. `adapter` "" is the base model.
std::vector<float> embedding_of(const nn::Transformer& model, std::span<const int32_t> tokens, Pooling pooling,
                                const std::string& adapter);

}  // namespace lathe::http
