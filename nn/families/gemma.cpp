#include "nn/families/gemma.h"

#include <cmath>

#include "core/error.h"
#include "core/json.h"
#include "nn/families/hf_fields.h"

namespace lathe::nn {

void set_gemma(ModelConfig& model) {
  model.activation = Activation::gelu_tanh;
  model.norm_placement = NormPlacement::before_and_after;
  model.embedding_scale = std::sqrt(static_cast<double>(model.hidden_size));
}

void check_gemma(const HfFields& config) {
  if (config.flag("use_bidirectional_attention", false))
    throw ConfigError("use_bidirectional_attention", "true is not supported: text is read from left to right");
  const std::string activation = config.text("hidden_activation", "gelu_pytorch_tanh");
  if (activation != "gelu_pytorch_tanh")
    throw ConfigError("hidden_activation", "expected gelu_pytorch_tanh, found " + json_excerpt(activation));
}

}  // namespace lathe::nn
